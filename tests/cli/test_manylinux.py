"""nixpatch manylinux on a venv: what real installers make of what it writes, and what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import resources

import jsonschema
import pytest

from support.shop import Call, Shop
from support.world import Run, World

pytestmark = pytest.mark.gcc

SCHEMA = json.loads(resources.files("nixpatch").joinpath("data/report.schema.json").read_text("utf-8"))


def _module(world: World) -> str:
    return os.path.join(world.site, "_manylinux.py")


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _write(path: str, text: str) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _manylinux_wheel(shop: Shop, tag: str = "manylinux_2_17") -> None:
    """Make a wheel that only a manylinux Python takes."""
    wheel = shop.wheel("one", native=False)
    os.rename(wheel, wheel.replace("-any.whl", f"-{tag}_{os.uname().machine}.whl"))


def _pip(shop: Shop) -> subprocess.CompletedProcess[str]:
    command = [os.path.join(shop.world.venv, "bin", "python"), "-m", "pip", "install", "--no-index"]
    command += ["--only-binary", ":all:", "--force-reinstall", "--find-links", shop.wheels, "one"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_pip_obeys_what_was_written(shop: Shop, call: Call) -> None:
    _manylinux_wheel(shop)
    assert _pip(shop).returncode == 0

    code, out, err = call("manylinux", "deny")

    assert code == 0
    assert out == f"{_module(shop.world)}: written (deny)\n"
    assert "--refresh" in err
    done = _pip(shop)
    assert done.returncode == 1
    assert "No matching distribution found for one" in done.stderr

    # pip must not take the bytecode of the former one.
    assert call("manylinux", "allow", shop.world.venv)[0] == 0
    assert _pip(shop).returncode == 0

    assert call("manylinux", "reset", shop.world.venv)[0] == 0
    assert _pip(shop).returncode == 0
    for directory in (shop.world.site, os.path.join(shop.world.site, "__pycache__")):
        names = os.listdir(directory) if os.path.isdir(directory) else []
        assert not [name for name in names if name.startswith("_manylinux")]


def test_bytecode_behind_a_link_is_left_alone(world: World, nixpatch: Run) -> None:
    outside = os.path.join(world.root, "outside")
    _write(os.path.join(outside, "_manylinux.cpython-311.pyc"), "precious")
    os.symlink(outside, os.path.join(world.site, "__pycache__"))

    assert nixpatch("manylinux", "deny", world.venv)[0] == 0

    assert os.path.isfile(_module(world))
    assert os.listdir(outside) == ["_manylinux.cpython-311.pyc"]


def test_an_honest_one_of_a_machine_without_libraries_denies(shop: Shop, call: Call) -> None:
    _manylinux_wheel(shop)

    code, out, _ = call("manylinux", "honest", "--pure")

    assert code == 0
    assert "written (honest: no policy)" in out
    assert _pip(shop).returncode == 1


def test_status_tells_claims_reasons_and_what_is_not_kept(world: World, nixpatch: Run) -> None:
    code, out, _ = nixpatch("manylinux", "status", world.venv)

    assert code == 1
    assert "_manylinux: no such module, so the version of glibc alone decides" in out
    assert f"Claims: manylinux_2_{_glibc()}_" in out
    assert "no: libGL.so.1: no source has a library of this name (and " in out
    _, more, _ = nixpatch("manylinux", "status", "-v", world.venv)
    assert "\n" + " " * 45 in more
    assert "libz.so.1: no source has a library of this name" in more

    nixpatch("manylinux", "deny", world.venv)
    code, out, _ = nixpatch("manylinux", "status", world.venv)

    assert code == 0
    assert f"{_module(world)} (site-packages of the tree), written by nixpatch manylinux deny" in out
    assert "Claims: no manylinux tag" in out


def test_the_tags_are_those_that_the_python_itself_gives(world: World, nixpatch: Run) -> None:
    """packaging, run by the venv's Python, with the module where the installers find it."""
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from packaging import tags\n"
        "print(*(tag for tag in tags.platform_tags() if tag.startswith('manylinux')))"
    )
    import packaging

    above = os.path.dirname(os.path.dirname(packaging.__file__))
    for mode in ("reset", "deny", "allow"):
        nixpatch("manylinux", mode, world.venv)
        command = [os.path.join(world.venv, "bin", "python"), "-c", code, above]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout

        _, out, _ = nixpatch("manylinux", "status", "--json", world.venv)

        assert json.loads(out)["trees"][0]["tags"] == told.split()


def test_the_document_keeps_to_the_schema(world: World, nixpatch: Run) -> None:
    _write(_module(world), "import os\nmanylinux1_compatible = bool(os)\n")

    _, out, _ = nixpatch("manylinux", "status", "--json", world.venv)

    document = json.loads(out)
    jsonschema.validate(document, SCHEMA)
    (module,) = document["trees"][0]["modules"]
    assert module["maker"] == "other"
    assert module["computed"] == "line 1 is more than a literal or a function"
    assert {policy["claimed"] for policy in document["trees"][0]["policies"]} <= {None, False}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("manylinux1_compatible = False\n", "has manylinux1_compatible = False"),
        ("", "has neither the attributes nor the function"),
        ("import sys\nsys.exit('do not run me')\n", "it is not run: line 1"),
        ("def manylinux_compatible(a, b, arch):\n    return False\n", "has manylinux_compatible(a, b, arch)"),
    ],
)
def test_that_of_somebody_else_is_read_and_left_alone(
    world: World, nixpatch: Run, text: str, says: str
) -> None:
    _write(_module(world), text)

    _, out, _ = nixpatch("manylinux", "status", world.venv)

    assert "not written by nixpatch" in out
    assert says in out
    for command in ("allow", "deny", "honest", "reset"):
        code, out, err = nixpatch("manylinux", command, world.venv)
        assert (code, out) == (2, "")
        assert (
            err == f"nixpatch: {_module(world)}: not written by nixpatch, so it stays; remove it yourself\n"
        )
    assert _read(_module(world)) == text


def test_one_of_ours_that_was_edited_is_somebody_elses(world: World, nixpatch: Run) -> None:
    nixpatch("manylinux", "deny", world.venv)
    edited = _read(_module(world)).replace("manylinux1_compatible = False", "manylinux1_compatible = True")
    _write(_module(world), edited)

    for command in ("allow", "reset"):
        code, _, err = nixpatch("manylinux", command, world.venv)
        assert code == 2
        assert "written by nixpatch manylinux and changed since, so it stays" in err
    assert _read(_module(world)) == edited
    _, out, _ = nixpatch("manylinux", "status", world.venv)
    assert "changed since" in out


def test_a_link_to_one_of_ours_is_not_ours(world: World, nixpatch: Run) -> None:
    nixpatch("manylinux", "deny", world.venv)
    other = world.copy("other")
    os.unlink(_module(other))
    os.symlink(_module(world), _module(other))

    assert nixpatch("manylinux", "allow", other.venv)[0] == 2
    assert "deny" in _read(_module(world))


@pytest.mark.parametrize("form", ["package", "compiled", "bytecode"])
def test_other_forms_of_the_module(world: World, nixpatch: Run, form: str) -> None:
    if form == "package":
        _write(os.path.join(world.site, "_manylinux", "__init__.py"), "manylinux1_compatible = False")
    else:
        name = "_manylinux.cpython-311-x86_64-linux-gnu.so" if form == "compiled" else "_manylinux.pyc"
        _write(os.path.join(world.site, name), "")

    _, out, _ = nixpatch("manylinux", "status", world.venv)

    assert ("has manylinux1_compatible = False" if form == "package" else "it is compiled") in out
    assert nixpatch("manylinux", "allow", world.venv)[0] == 2


def test_one_that_stands_earlier_on_the_path_counts(world: World, nixpatch: Run) -> None:
    """nixpkgs up to 2019 had one in the standard library: what a venv has is not imported then."""
    base = os.path.join(world.root, "base")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    _write(os.path.join(base, "lib", version, "os.py"), "")
    theirs = _write(os.path.join(base, "lib", version, "_manylinux.py"), "manylinux2014_compatible = False\n")
    config = os.path.join(world.venv, "pyvenv.cfg")
    lines = [line for line in _read(config).splitlines() if not line.startswith("home")]
    _write(config, "\n".join([f"home = {base}/bin", *lines, ""]))

    code, _, err = nixpatch("manylinux", "allow", world.venv)

    assert code == 1
    assert f"{theirs} (the standard library) is imported instead" in err
    _, out, _ = nixpatch("manylinux", "status", "--json", world.venv)
    tree = json.loads(out)["trees"][0]
    assert [module["path"] for module in tree["modules"]] == [theirs, _module(world)]
    assert not [tag for tag in tree["tags"] if tag.startswith(("manylinux2014", "manylinux_2_17_"))]
    assert [tag for tag in tree["tags"] if tag.startswith("manylinux1_")]


def test_the_base_python_counts_where_the_venv_sees_it(world: World, nixpatch: Run) -> None:
    base = os.path.join(world.root, "base")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    _write(os.path.join(base, "lib", version, "os.py"), "")
    elsewhere = os.path.join(world.root, "elsewhere")
    theirs = _write(
        os.path.join(elsewhere, "_manylinux.py"), "def manylinux_compatible(a, b, c): return False"
    )
    _write(os.path.join(base, "lib", version, "site-packages", "more.pth"), f"import os\n{elsewhere}\n")
    config = os.path.join(world.venv, "pyvenv.cfg")
    for sees in ("false", "true"):
        lines = [line for line in _read(config).splitlines() if not line.startswith(("home", "include"))]
        _write(
            config, "\n".join([f"home = {base}/bin", f"include-system-site-packages = {sees}", *lines, ""])
        )

        _, out, _ = nixpatch("manylinux", "status", world.venv)

        assert (f"{theirs} (named by more.pth)" in out) == (sees == "true")
        assert ("Claims: no manylinux tag" in out) == (sees == "true")


def test_a_directory_of_elf_files_has_no_installer(world: World, nixpatch: Run) -> None:
    plain = os.path.join(world.root, "plain")
    shutil.copytree(os.path.join(world.site, "pkg"), plain)

    code, _, err = nixpatch("manylinux", "allow", plain)

    assert code == 2
    assert "this is for a venv, a prefix, or a site-packages" in err


def _glibc() -> str:
    return os.confstr("CS_GNU_LIBC_VERSION").rpartition(".")[2]  # type: ignore[union-attr]
