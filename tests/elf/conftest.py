"""Every test here that compiles does it in one workshop."""

import pytest

from support.programs import Workshop


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(str(tmp_path_factory.mktemp("elf")))
