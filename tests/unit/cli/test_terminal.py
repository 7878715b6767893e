"""A progress bar is for people: not for the log of a Nix build, nor for that of a CI."""

import pytest

from nixpatch.cli.terminal import is_watched


@pytest.mark.parametrize(
    ("environment", "watched"),
    [
        ({}, True),
        ({"NIX_BUILD_TOP": "/build"}, False),
        ({"NIX_BUILD_TOP": "/tmp", "IN_NIX_SHELL": "impure"}, True),
        ({"CI": "true"}, False),
        ({"CI": ""}, True),
    ],
)
def test_who_watches(environment: dict[str, str], watched: bool) -> None:
    assert is_watched(environment) is watched
