import os
from pathlib import Path

import pytest

from nixpatch.errors import MachineError, RequestError
from nixpatch.store.nix_store import DEFAULT_STORE_DIR, Store, find_store
from support.people import NOBODY, needs_root

ZLIB = "0c5b8vw40dy178xlpddw65q9gf1h2186-zlib-1.3.1"
GLIBC = "1c5b8vw40dy178xlpddw65q9gf1h2186-glibc-2.40"


def own_store(scratch: Path, script: str) -> Store:
    """A store with Nix's state beside it, and a ``nix-store`` that runs a shell script."""
    directory = scratch / "nix" / "store"
    directory.mkdir(parents=True)
    (scratch / "nix" / "var" / "nix").mkdir(parents=True)
    program = scratch / "bin" / "nix-store"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    path = f"{program.parent}:/usr/bin:/bin"
    environment = {"NIX_STORE_DIR": str(directory), "PATH": path, "LD_PRELOAD": "x", "LANG": "de_DE.UTF-8"}
    return find_store(None, environment)


def test_store_is_the_option_then_nixs_variable_then_the_default(tmp_path: Path) -> None:
    variables = {"NIX_STORE_DIR": "/other/store"}
    assert find_store(str(tmp_path), variables).directory == str(tmp_path)
    assert find_store(None, variables).directory == "/other/store"
    assert find_store(None, {}).directory == DEFAULT_STORE_DIR


def test_a_store_option_that_is_no_directory_is_a_wrong_request(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="not a directory"):
        find_store(str(tmp_path / "absent"), {})


def test_nix_is_not_asked_about_a_store_that_is_not_its_own(tmp_path: Path) -> None:
    store = own_store(tmp_path, "exit 1")
    other = tmp_path / "other"
    other.mkdir()
    assert store.program is not None
    assert find_store(str(other), dict(store.environ)).program is None


def test_nix_is_not_asked_where_its_state_is_not_visible(tmp_path: Path) -> None:
    store = own_store(tmp_path, "exit 1")
    (tmp_path / "nix" / "var" / "nix").rmdir()
    assert find_store(None, dict(store.environ)).program is None


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"/nix/store/{ZLIB}/lib/libz.so.1", f"/nix/store/{ZLIB}"),
        (f"/nix/store/{ZLIB}", f"/nix/store/{ZLIB}"),
        (f"/nix/store//{ZLIB}/", f"/nix/store/{ZLIB}"),
        ("/nix/store", None),
        ("/nix/store/.links/abc", None),
        (f"/nix/storehouse/{ZLIB}", None),
        ("/usr/lib/libz.so.1", None),
        (f"relative/nix/store/{ZLIB}", None),
        ("", None),
    ],
)
def test_store_path_of(path: str, found: str | None) -> None:
    assert Store("/nix/store", "/nix/store").store_path_of(path) == found


def test_symlinks_are_followed_into_the_store_only_if_asked(tmp_path: Path) -> None:
    store = own_store(tmp_path, "exit 1")
    (tmp_path / "nix" / "store" / ZLIB).mkdir()
    result = tmp_path / "result"
    result.symlink_to(tmp_path / "nix" / "store" / ZLIB)
    assert store.store_path_of(str(result)) is None
    assert store.store_path_of(str(result), resolve=True) == f"{store.directory}/{ZLIB}"


def test_a_store_behind_a_symlink_keeps_the_name_that_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "data" / "store" / ZLIB).mkdir(parents=True)
    (tmp_path / "nix").symlink_to(tmp_path / "data")
    store = find_store(str(tmp_path / "nix" / "store"), {})
    real = os.path.realpath(tmp_path / "nix" / "store" / ZLIB)
    assert store.store_path_of(real) == f"{tmp_path}/nix/store/{ZLIB}"
    assert store.canonical(f"{real}/lib") == f"{tmp_path}/nix/store/{ZLIB}/lib"


def test_package_name_has_no_hash() -> None:
    store = Store("/nix/store", "/nix/store")
    assert store.package_name(f"/nix/store/{ZLIB}/lib") == "zlib-1.3.1"
    assert store.package_name("/usr/lib") == ""


def test_requisites_are_sorted_and_the_environment_is_clean(tmp_path: Path) -> None:
    script = f'[ "$LC_ALL,$LANG,$LD_PRELOAD" = C,, ] && echo "$3" && echo {tmp_path}/nix/store/{ZLIB}'
    store = own_store(tmp_path, script)
    paths = [f"{store.directory}/{GLIBC}"]
    assert store.requisites(paths) == (f"{store.directory}/{ZLIB}", f"{store.directory}/{GLIBC}")


def test_failure_of_nix_is_one_line_with_its_last_word(tmp_path: Path) -> None:
    store = own_store(tmp_path, "echo warning: something >&2; echo error: disk is full >&2; exit 1")
    with pytest.raises(MachineError) as caught:
        store.requisites([f"{store.directory}/{ZLIB}"])
    message = str(caught.value)
    assert "error: disk is full" in message
    assert "nix-store -q -R" in message
    assert "warning" not in message
    assert "\n" not in message


def test_nix_that_does_not_answer_ends_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nixpatch.store.nix_store._TIMEOUT", 0.2)
    store = own_store(tmp_path, "exec sleep 60")
    with pytest.raises(MachineError, match="no answer"):
        store.invalid([f"{store.directory}/{ZLIB}"])


@pytest.mark.parametrize("path", ["--option", "/etc", "", "nixpkgs#zlib"])
def test_what_is_no_store_path_never_reaches_the_command_line(tmp_path: Path, path: str) -> None:
    store = own_store(tmp_path, f"touch {tmp_path}/ran")
    with pytest.raises(RequestError, match="not a path in the store"):
        store.requisites([path])
    with pytest.raises(RequestError, match="not a path in the store"):
        store.invalid([path])
    assert not (tmp_path / "ran").exists()


def test_all_paths_are_checked_in_one_call(tmp_path: Path) -> None:
    store = own_store(
        tmp_path, f'echo x >> {tmp_path}/calls; shift 2; for p; do case $p in *zlib*) echo "$p"; esac; done'
    )
    paths = [f"{store.directory}/{name}" for name in (ZLIB, GLIBC)]
    assert store.invalid(paths) == {paths[0]}
    assert (tmp_path / "calls").read_text() == "x\n"


def test_without_nix_nothing_is_known_to_be_invalid() -> None:
    assert Store("/nix/store", "/nix/store").invalid([f"/nix/store/{ZLIB}"]) == frozenset()


@needs_root
@pytest.mark.parametrize(
    ("mode", "daemon", "variables", "is_asked"),
    [
        (0o755, False, {}, False),
        (0o777, False, {}, True),
        (0o755, True, {}, True),
        (0o755, False, {"NIX_REMOTE": "daemon"}, True),
    ],
)
def test_the_nix_of_another_user_is_asked_only_through_its_daemon(
    tmp_path: Path, mode: int, daemon: bool, variables: dict[str, str], is_asked: bool
) -> None:
    store = own_store(tmp_path, "exit 1")
    state = tmp_path / "nix" / "var" / "nix"
    state.chmod(mode)
    if daemon:
        (state / "daemon-socket").mkdir()
        (state / "daemon-socket" / "socket").touch()
    for parent in [tmp_path, *tmp_path.parents][:4]:
        parent.chmod(0o755)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(NOBODY)
            found = find_store(None, {**dict(store.environ), **variables})
            os._exit(2 * (found.program is not None) + found.denied)
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (2 if is_asked else 1)
