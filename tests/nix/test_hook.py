"""nixpatchHook, wheel.nix and environment.nix in real builds, over a stdenv with nixpkgs' phases."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import shutil

import pytest

from nix.standin import Standin, bring_strip, download
from support.testbed.sandbox import Sandbox
from support.testbed.store import NixStore
from support.testbed.venv import StoreVenvFactory

REPOSITORY = os.path.realpath(os.path.join(__file__, "..", "..", ".."))
SITE = "lib/python3.11/site-packages"
# The stand-in's fixup does what the derivations of nixpatch switch off.
FIXUP: dict[str, object] = {"dontStrip": False, "dontPatchELF": False}


@pytest.fixture(scope="module")
def standin(
    nix_store: NixStore, store_venv: StoreVenvFactory, tmp_path_factory: pytest.TempPathFactory
) -> Standin:
    if not shutil.which("strip"):
        pytest.skip("not installed: strip")
    venv = store_venv("installer")
    venv.install_project(REPOSITORY)
    return Standin(nix_store, venv.site_packages, bring_strip(str(tmp_path_factory.mktemp("strip"))))


@pytest.fixture(scope="module")
def numpy(nix_store: NixStore) -> list[str]:
    """Needs libstdc++, and through its own libgfortran zlib."""
    return download(nix_store, "numpy")


@pytest.fixture(scope="module")
def pyzmq(nix_store: NixStore) -> list[str]:
    """Brings libzmq along, which needs libstdc++."""
    return download(nix_store, "pyzmq")


def _stale(out: str, dist: str) -> list[str]:
    """The rows of RECORD that do not say what is in the file."""
    site = os.path.join(out, SITE)
    stale = []
    with open(os.path.join(site, f"{dist}.dist-info", "RECORD"), encoding="utf-8", newline="") as file:
        for path, said, _ in csv.reader(file):
            with open(os.path.join(site, path), "rb") as recorded:
                digest = base64.urlsafe_b64encode(hashlib.sha256(recorded.read()).digest()).rstrip(b"=")
            if said and said != f"sha256={digest.decode()}":
                stale.append(path)
    return stale


def _dist(wheel: str) -> str:
    return "-".join(os.path.basename(wheel).split("-")[:2])


def _import(sandbox: Sandbox, out: str, code: str) -> tuple[str, str]:
    """Run Python code with nothing but the closure of the result and Python."""
    env = {"PYTHONPATH": os.path.join(out, SITE), "PYTHONDONTWRITEBYTECODE": "1"}
    done = sandbox.run([sandbox.store.python, "-c", code], env=env, closure=[out, "python3"])
    return done.stdout, done.stderr


def test_a_wheel_refers_to_what_its_files_use(
    standin: Standin, nix_store: NixStore, sandbox: Sandbox, numpy: list[str]
) -> None:
    done = standin.build(numpy, "openssl gccLib sqlite zlib")

    assert done.returncode == 0, done.stderr
    out = done.stdout.strip()
    assert os.path.basename(out)[33:] == _dist(numpy[0])
    # Python is in the first lines of bin/f2py; the inputs that nothing needs are not there.
    assert standin.references(out) == sorted(nix_store[name] for name in ("gccLib", "python3", "zlib"))
    code = "import numpy; print(numpy.linalg.inv(numpy.eye(2))[0][0])"
    assert _import(sandbox, out, code) == ("1.0\n", "")
    assert _stale(out, _dist(numpy[0])) == []


def test_a_rebuild_in_nix_own_sandbox_gives_the_same_bytes(
    standin: Standin, nix_store: NixStore, sandbox: Sandbox, pyzmq: list[str]
) -> None:
    tell: dict[str, object] = {"postInstall": 'echo "building in $NIX_BUILD_TOP"'}
    first = standin.build(pyzmq, "gccLib", more=tell)
    assert first.returncode == 0, first.stderr

    again = standin.build(pyzmq, "gccLib", "--check", more=tell)
    boxed = standin.build(pyzmq, "gccLib", "--check", "--option", "sandbox", "true", more=tell)

    assert again.returncode == 0, again.stderr
    assert boxed.returncode == 0, boxed.stderr
    assert "building in /build\n" in boxed.stderr
    assert standin.references(first.stdout.strip()) == [nix_store["gccLib"]]
    assert _import(sandbox, first.stdout.strip(), "import zmq; zmq.Context().term()") == ("", "")


def test_a_missing_library_fails_the_build_and_names_its_attribute(
    standin: Standin, numpy: list[str]
) -> None:
    done = standin.build(numpy, "zlib")

    assert done.returncode != 0
    assert "libstdc++.so.6, needed by" in done.stderr
    assert "buildInputs = with pkgs; [ stdenv.cc.cc.lib ];" in done.stderr


@pytest.mark.parametrize("strict", [True, False])
def test_tools_of_the_build_serve_no_libraries(standin: Standin, pyzmq: list[str], strict: bool) -> None:
    done = standin.build(pyzmq, "", tools="gccLib", more={"strictDeps": strict})

    assert done.returncode != 0
    assert "libstdc++.so.6, needed by" in done.stderr


def test_what_may_be_missing_and_what_is_appended(
    standin: Standin, nix_store: NixStore, pyzmq: list[str]
) -> None:
    lists: dict[str, object] = {
        "nixpatchIgnoreMissing": ["libstdc++.so.*", "libgcc_s.so.1"],
        "runtimeDependencies": [nix_store["zlib"], "/run/opengl-driver"],
        "appendRunpaths": ["$ORIGIN/../lib"],
        "nixpatchFlags": ["-v"],
    }
    for structured in (False, True):
        done = standin.build(pyzmq, "", more={**lists, "__structuredAttrs": structured})

        assert done.returncode == 0, done.stderr
        appended = f"{nix_store['zlib']}/lib:/run/opengl-driver/lib:$ORIGIN/../lib"
        assert f"-> RPATH $ORIGIN:{appended}\n" in done.stderr


def test_structured_attributes(standin: Standin, nix_store: NixStore, pyzmq: list[str]) -> None:
    more: dict[str, object] = {"__structuredAttrs": True, "appendRunpaths": ["$ORIGIN/a directory"]}
    done = standin.build(pyzmq, "gccLib zlib", more={**more, "nixpatchFlags": ["-v"]})

    assert done.returncode == 0, done.stderr
    assert f"-> RPATH $ORIGIN:{nix_store['gccLib']}/lib:$ORIGIN/a directory\n" in done.stderr
    assert standin.references(done.stdout.strip()) == [nix_store["gccLib"]]


def test_dont_nixpatch(standin: Standin, pyzmq: list[str]) -> None:
    done = standin.build(pyzmq, "", more={"dontNixpatch": True})

    assert done.returncode == 0, done.stderr
    assert standin.references(done.stdout.strip()) == []


def test_autopatchelf_beside_it_is_told(standin: Standin, pyzmq: list[str]) -> None:
    # What autoPatchelfHook defines; it replaces search paths instead of adding to them.
    beside: dict[str, object] = {"preInstall": "autoPatchelf() { :; }"}

    both = standin.build(pyzmq, "gccLib", more=beside)
    one = standin.build(pyzmq, "gccLib", more={**beside, "dontAutoPatchelf": True})

    assert "set dontAutoPatchelf" in both.stderr
    assert one.returncode == 0, one.stderr
    assert "dontAutoPatchelf" not in one.stderr


def test_after_strip_and_shrink_rpath(
    standin: Standin, nix_store: NixStore, sandbox: Sandbox, pyzmq: list[str]
) -> None:
    done = standin.build(pyzmq, "gccLib", more=FIXUP)

    assert done.returncode == 0, done.stderr
    out = done.stdout.strip()
    assert standin.references(out) == [nix_store["gccLib"]]
    assert _import(sandbox, out, "import zmq; zmq.Context().term()") == ("", "")
    # Whoever changed a file, strip or nixpatch: the output is described as it is.
    assert _stale(out, _dist(pyzmq[0])) == []


def test_as_a_step_of_the_install_phase(standin: Standin, nix_store: NixStore, pyzmq: list[str]) -> None:
    step: dict[str, object] = {"postInstall": "nixpatchPatch", "runtimeDependencies": ["/run/opengl-driver"]}
    done = standin.build(pyzmq, "gccLib", more={**FIXUP, **step})

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Patched 3 of 3 ELF files") == 1
    assert done.stderr.index("Patched 3 of 3") < done.stderr.index("phase fixupPhase")
    # Neither strip nor patchelf has undone or falsified it afterwards.
    out = done.stdout.strip()
    assert standin.references(out) == [nix_store["gccLib"]]
    assert _stale(out, _dist(pyzmq[0])) == []


def test_every_output_is_patched_and_serves_the_others(
    standin: Standin, nix_store: NixStore, pyzmq: list[str]
) -> None:
    libs = f"$out/{SITE}/pyzmq.libs"
    more: dict[str, object] = {
        "outputs": ["out", "plugins", "debug"],
        "postInstall": f"mkdir -p $plugins/lib $debug $out/lib\n"
        f"cp {libs}/libzmq* $plugins/lib; cp {libs}/libsodium* $out/lib",
    }
    for structured in (False, True):
        attributes = {**more, "__structuredAttrs": structured}
        done = standin.build(pyzmq, "gccLib", "-A", "plugins", more=attributes)
        out = standin.build(pyzmq, "gccLib", "-A", "out", more=attributes)

        assert done.returncode == 0, done.stderr
        expected = sorted([nix_store["gccLib"], out.stdout.strip()])
        assert standin.references(done.stdout.strip()) == expected


def test_merged_wheels_see_each_other(
    standin: Standin, nix_store: NixStore, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["numpy", "scipy", "pandas", "pyzmq", "ruff", "python-dateutil", "six"]
    done = standin.build(download(nix_store, *names), "gccLib zlib")

    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr  # Nix gives a builder a terminal, and keeps what is written there
    out = done.stdout.strip()
    assert standin.references(out) == sorted(
        nix_store[name] for name in ("gccLib", "glibc", "python3", "zlib")
    )
    code = "import scipy.linalg, pandas, zmq; print(pandas.DataFrame(scipy.linalg.inv([[2.0]]))[0][0])"
    assert _import(sandbox, out, code) == ("0.5\n", "")
    ruff = sandbox.run([os.path.join(out, "bin", "ruff"), "--version"], closure=[out])
    assert ruff.stdout.startswith("ruff "), ruff.stderr
    with capsys.disabled():
        print("\nthe closure of the merged environment:", *sorted(nix_store.closure(out)), sep="\n  ")


def test_unvendor_among_the_flags_deletes_the_copies(
    standin: Standin, nix_store: NixStore, sandbox: Sandbox, pyzmq: list[str]
) -> None:
    flags: dict[str, object] = {"nixpatchFlags": "--unvendor"}

    done = standin.build(pyzmq, "gccLib libsodium zeromq", more=flags)

    assert done.returncode == 0, done.stderr
    out = done.stdout.strip()
    assert "Un-vendored 2 of 2" in done.stderr
    names = {name for _, _, found in os.walk(out) for name in found}
    assert not [name for name in names if name.startswith(("libzmq", "libsodium")) and ".so" in name]
    assert nix_store["zeromq"] in standin.references(out)
    assert _import(sandbox, out, "import zmq; zmq.Context().term()") == ("", "")
    assert _stale(out, _dist(pyzmq[0])) == []
