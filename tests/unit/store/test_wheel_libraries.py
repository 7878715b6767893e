"""The libraries that the Nix overlay offers to wheels: what they are made from."""

import importlib.util
import json
import os

from nixpatch.resolve.manylinux import policies

REPOSITORY = os.path.realpath(os.path.join(__file__, "..", "..", "..", ".."))
SCRIPT = os.path.join(REPOSITORY, "fixtures", "catalog", "wheel_libraries.py")
TABLE = os.path.join(REPOSITORY, "src", "nixpatch", "nix", "wheel-libraries.json")


def test_the_table_is_what_the_catalogue_says() -> None:
    spec = importlib.util.spec_from_file_location("wheel_libraries", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    with open(TABLE, encoding="ascii") as file:
        assert file.read() == script.text(), "run python fixtures/catalog/wheel_libraries.py"


def test_every_wheel_is_offered_what_manylinux_promises() -> None:
    with open(TABLE, encoding="ascii") as file:
        table = json.load(file)
    names = {row[0] for row in table["all"]}

    assert {"zlib", "expat", "glib", "libGL", "libx11", "stdenv.cc.cc"} <= names
    assert any("libGL.so.1" in policy.libraries for policy in policies())
    # Not more than a machine that builds can have lying about, and nothing unfree.
    assert len(names) < 70
    assert not [name for name in names if name.startswith("cuda")]
