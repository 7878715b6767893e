"""What Nix is asked for, with programs that only write down how they were called."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from nixpatch.errors import MachineError, RequestError
from nixpatch.model import Machine
from nixpatch.store.catalog import Catalog
from nixpatch.store.nix_store import Store, find_store
from nixpatch.store.nixpkgs import Nixpkgs, parse_reference, realise

HERE = Machine({"x86_64": 62, "aarch64": 183}.get(os.uname().machine, 62), 64, "little")
ZLIB = "0c5b8vw40dy178xlpddw65q9gf1h2186-zlib-1.3.1"
CATALOG = Catalog(
    "libx11 xorg.libX11\tlibX11.so.6\txorg.libX11 before nixpkgs 26.05\n"
    "cudaPackages.nccl^*\tlibnccl.so.2\tunfree (config.allowUnfree)\n"
    "@driver\tlibcuda.so.1\tcomes with the driver\n"
    "\n"
    "zlib\tlibz.so.1 libminizip.so.1 \n"
    "other\tlibfoo.so.1 \n"
    "openssl^out\tlibssl.so.3 \n"
    "ffmpeg^lib\tlibavutil.so.59 \n"
)


@dataclass
class World:
    """A store, and ``nix-build`` and ``nix`` that run a shell script."""

    root: Path
    store: Store

    def calls(self) -> list[list[str]]:
        log = self.root / "calls"
        return [line.split("|")[:-1] for line in log.read_text().splitlines()] if log.exists() else []


def world(root: Path, script: str, **environment: str) -> World:
    directory = root / "nix" / "store"
    directory.mkdir(parents=True)
    (root / "nix" / "var" / "nix").mkdir(parents=True)
    (root / "bin").mkdir()
    for name in ("nix-store", "nix-build", "nix"):
        program = root / "bin" / name
        log = f'for word; do printf "%s|" "$word"; done >> {root}/calls; echo >> {root}/calls'
        program.write_text(f"#!/bin/sh\n{log}\n{script}\n")
        program.chmod(0o755)
    variables = {"NIX_STORE_DIR": str(directory), "PATH": f"{root}/bin:/usr/bin:/bin", **environment}
    return World(root, find_store(None, variables))


FILE = Nixpkgs("./n.nix", "/n.nix", flake=False)
FLAKE = Nixpkgs("nixpkgs", "nixpkgs", flake=True)


def test_kinds_of_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("nixpkgs", "both", "only-flake", "neither"):
        (tmp_path / name).mkdir()
    for name in (
        "nixpkgs/default.nix",
        "both/default.nix",
        "both/flake.nix",
        "only-flake/flake.nix",
        "x.nix",
    ):
        (tmp_path / name).write_text("{ }")
    assert parse_reference("nixpkgs") == Nixpkgs("nixpkgs", "nixpkgs", flake=True)
    assert parse_reference("github:NixOS/nixpkgs/nixos-25.11").flake
    assert parse_reference("<nixpkgs>") == Nixpkgs("<nixpkgs>", "<nixpkgs>", flake=False)
    assert not parse_reference("channel:nixos-25.11").flake
    assert parse_reference("./x.nix") == Nixpkgs("./x.nix", f"{tmp_path}/x.nix", flake=False)
    assert parse_reference("./both") == Nixpkgs("./both", f"{tmp_path}/both", flake=False)
    assert parse_reference(f"{tmp_path}/only-flake") == Nixpkgs(
        f"{tmp_path}/only-flake", f"path:{tmp_path}/only-flake", flake=True
    )
    with pytest.raises(RequestError, match=r"neither default\.nix nor flake\.nix"):
        parse_reference("./neither")


@pytest.mark.parametrize("given", ["", "-A", "--expr", "./absent.nix", "nixpkgs#zlib", "a\nb"])
def test_what_is_no_reference(given: str) -> None:
    with pytest.raises(RequestError, match="--nixpkgs"):
        parse_reference(given)


def test_one_call_for_all_attributes_of_a_file(tmp_path: Path) -> None:
    here = world(tmp_path, f"echo {tmp_path}/nix/store/{ZLIB}; echo warning: x >&2; echo {tmp_path}/other")
    said: list[str] = []
    sonames = ["libz.so.1", "libssl.so.3", "libminizip.so.1", "libavutil.so.59", "libcuda.so.1", "libno.so"]
    done = realise(here.store, FILE, sonames, HERE, catalog=CATALOG, on_message=said.append)
    assert done.paths == (f"{here.store.directory}/{ZLIB}",)
    assert here.calls() == [
        ["--no-out-link", "/n.nix", "-A", "ffmpeg.lib", "-A", "openssl.out", "-A", "zlib.out"]
    ]
    assert said == ["realising from ./n.nix: ffmpeg.lib, openssl.out, zlib.out"]
    assert done.notes["libcuda.so.1"] == "--nixpkgs ./n.nix: comes with the driver"
    assert done.notes["libno.so"] == "--nixpkgs ./n.nix: no attribute is known to have it"
    assert done.notes["libz.so.1"] == "--nixpkgs ./n.nix: zlib does not have it in lib"


def test_one_call_for_all_attributes_of_a_flake(tmp_path: Path) -> None:
    outputs = json.dumps([{"outputs": {"out": f"{tmp_path}/nix/store/{ZLIB}"}}, {"outputs": {}}])
    here = world(tmp_path, f"echo '{outputs}'")
    done = realise(here.store, FLAKE, ["libz.so.1", "libssl.so.3"], HERE, catalog=CATALOG)
    assert done.paths == (f"{here.store.directory}/{ZLIB}",)
    (call,) = here.calls()
    assert (call[0], call[-2:]) == ("build", ["nixpkgs#openssl.out", "nixpkgs#zlib.out"])
    assert {"--no-link", "--json", "--no-write-lock-file"} < set(call)
    assert "--impure" not in call


def test_what_nixpkgs_asks_the_environment_for_gets_through(tmp_path: Path) -> None:
    script = '[ "$NIXPKGS_ALLOW_UNFREE,$SECRET" = 1, ] && echo "[]"'
    here = world(tmp_path, script, NIXPKGS_ALLOW_UNFREE="1", SECRET="x")
    realise(here.store, FLAKE, ["libz.so.1"], HERE, catalog=CATALOG)
    assert "--impure" in here.calls()[0]


def test_nix_is_not_run_for_what_nixpkgs_cannot_have(tmp_path: Path) -> None:
    here = world(tmp_path, "exit 1")
    assert realise(here.store, FILE, ["libcuda.so.1", "libno.so"], HERE, catalog=CATALOG).paths == ()
    assert realise(here.store, FILE, [], HERE, catalog=CATALOG).paths == ()
    assert here.calls() == []


# Fails for every attribute of $absent, in the words of nix-build or of a flake.
BUILD = """
for word; do
  case " $absent " in *" ${word#*#} "*)
    echo "trace: x" >&2
    case $word in
      *#*) name=${word#*#}
        echo "error: flake '${word%#*}' does not provide attribute 'packages.x.$name' or '$name'";;
      *) echo "error: attribute 'a' in selection path '$word' not found"; echo "       Did you mean b?";;
    esac >&2
    exit 1
  esac
done
echo "[]"
"""


@pytest.mark.parametrize("nixpkgs", [FILE, FLAKE])
def test_an_older_name_and_an_unknown_output_are_tried(tmp_path: Path, nixpkgs: Nixpkgs) -> None:
    here = world(tmp_path, f"absent='libx11.out cudaPackages.nccl.lib cudaPackages.nccl.out'\n{BUILD}")
    realise(here.store, nixpkgs, ["libnccl.so.2", "libX11.so.6", "libz.so.1"], HERE, catalog=CATALOG)
    last = {word.partition("#")[2] or word for word in here.calls()[-1]}
    assert {"cudaPackages.nccl", "xorg.libX11.out", "zlib.out"} < last
    assert len(here.calls()) == 4


def test_libraries_that_moved_from_lib_to_out(tmp_path: Path) -> None:
    here = world(tmp_path, f"absent='ffmpeg.lib'\n{BUILD}")

    realise(here.store, FILE, ["libavutil.so.60"], HERE, catalog=Catalog("\nffmpeg^lib\tlibavutil.so.60 \n"))

    assert [call[-1] for call in here.calls()] == ["ffmpeg.lib", "ffmpeg.out"]


@pytest.mark.parametrize("nixpkgs", [FILE, FLAKE])
def test_an_attribute_that_is_not_there_is_told_with_what_it_was_for(
    tmp_path: Path, nixpkgs: Nixpkgs
) -> None:
    here = world(tmp_path, f"absent='zlib.out'\n{BUILD}")
    with pytest.raises(MachineError) as caught:
        realise(here.store, nixpkgs, ["libz.so.1", "libminizip.so.1", "libssl.so.3"], HERE, catalog=CATALOG)
    message = str(caught.value)
    assert message.startswith(f"--nixpkgs {nixpkgs.given}: ")
    assert "'zlib.out'" in message
    assert (
        "to provide libminizip.so.1, libz.so.1: name a nixpkgs that has it, or --ignore-missing them"
        in message
    )
    assert "\n" not in message
    assert "openssl" not in message


def test_when_no_name_is_left_all_that_were_tried_are_told(tmp_path: Path) -> None:
    here = world(tmp_path, f"absent='libx11.out xorg.libX11.out'\n{BUILD}")
    with pytest.raises(
        MachineError, match=r"\(tried libx11\.out, xorg\.libX11\.out\), to provide libX11\.so\.6"
    ):
        realise(here.store, FILE, ["libX11.so.6"], HERE, catalog=CATALOG)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "error: builder for '/x-zlib.drv' failed with exit code 7;\n  last lines:\n  > no\nerror: 1 of 2",
            "builder for '/x-zlib.drv' failed with exit code 7; asked for zlib.out",
        ),
        (
            "error:\n   … while evaluating\n\n   error: infinite recursion",
            "infinite recursion; asked for zlib.out",
        ),
        ("bash: killed", "bash: killed; asked for zlib.out"),
        ("", "exit 1; asked for zlib.out"),
    ],
)
def test_a_failure_is_one_line_that_says_most(tmp_path: Path, said: str, told: str) -> None:
    (tmp_path / "said").write_text(said)
    here = world(tmp_path, f"cat {tmp_path}/said >&2; exit 1")
    with pytest.raises(MachineError) as caught:
        realise(here.store, FILE, ["libz.so.1"], HERE, catalog=CATALOG)
    assert str(caught.value) == f"--nixpkgs ./n.nix: {told}"


def test_unfree_has_a_way_out(tmp_path: Path) -> None:
    here = world(tmp_path, "echo \"error: Package 'nccl' has an unfree license\" >&2; exit 1")
    with pytest.raises(MachineError, match="NIXPKGS_ALLOW_UNFREE=1 allows it"):
        realise(here.store, FILE, ["libnccl.so.2"], HERE, catalog=CATALOG)


def test_another_machine_is_asked_for(tmp_path: Path) -> None:
    here = world(tmp_path, "exit 0")
    realise(here.store, FILE, ["libz.so.1"], Machine(21, 64, "little"), catalog=CATALOG)
    assert here.calls()[0][1:4] == ["--option", "system", "powerpc64le-linux"]


def test_without_nix_there_is_nothing_to_realise_with() -> None:
    with pytest.raises(MachineError, match="no nix-build that manages /nix/store"):
        realise(Store("/nix/store", "/nix/store"), FILE, ["libz.so.1"], HERE, catalog=CATALOG)


def test_nonsense_from_nix_is_an_error(tmp_path: Path) -> None:
    here = world(tmp_path, "echo '[{\"outputs\": 3}]'")
    with pytest.raises(MachineError, match="printed no list of outputs"):
        realise(here.store, FLAKE, ["libz.so.1"], HERE, catalog=CATALOG)
