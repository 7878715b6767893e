"""Which text files of a tree a run will write: start-up files, and first lines of scripts."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from pathlib import Path

import pytest

from nixpatch.errors import MachineError
from nixpatch.installed.scan import scan
from nixpatch.installed.startup_file import startup_file
from nixpatch.model import Finding, TextKind, TextPlan
from nixpatch.operations.text_plan import plan_scripts, plan_startup_files
from nixpatch.policy import Policy, parse
from nixpatch.resolve.python_libraries import PythonLibraries
from support.installed_trees import SITE, dist, write
from support.resolving import TARGET

STORE = "/nix/store"
BASH = f"{STORE}/0123456789abcdfghijklmnpqrsvwxyz-bash-5/bin/bash"
LIBRARY = f"{STORE}/0123456789abcdfghijklmnpqrsvwxyz-z-1/lib/libz.so.1"
OPENS = PythonLibraries({"libz.so": LIBRARY}, {"z": LIBRARY, "c": "libc.so.6"})
NO_POLICY = Policy()


@pytest.fixture
def root(tmp_path: Path) -> str:
    os.makedirs(tmp_path / SITE)
    write(tmp_path / "pyvenv.cfg", b"")
    write(tmp_path / "bin/python", b"", 0o755)
    return os.path.realpath(tmp_path)


def install(root: str, name: str = "pkg", files: Mapping[str, bytes] | None = None) -> str:
    return dist(os.path.join(root, SITE), name, files or {f"{name}.py": b""})


def startups(
    root: str, python: Mapping[str, PythonLibraries], policy: Policy = NO_POLICY
) -> list[TextPlan | Finding]:
    return list(plan_startup_files(scan(root), python, policy))


def scripts(
    root: str, programs: Mapping[str, str] | None = None, store: Mapping[str, str] | None = None
) -> list[TextPlan | Finding]:
    find = {"bash": BASH, **(store or {})}.get
    return list(plan_scripts(scan(root), TARGET, STORE, find, programs or {}))


def script(root: str, line: bytes, name: str = "../../../bin/run") -> str:
    install(root, "pkg", {name: line + b"\necho\n"})
    path = os.path.normpath(os.path.join(root, SITE, name))
    os.chmod(path, 0o755)
    return path


class TestStartupFiles:
    """Start-up files."""

    def test_a_dist_that_opens_something_has_one(self, root: str) -> None:
        info = install(root)
        install(root, "other")

        (text,) = startups(root, {info: OPENS})

        assert text == TextPlan(
            os.path.join(root, SITE, "nixpatch-pkg.pth"),
            info,
            TextKind.STARTUP,
            startup_file("pkg", OPENS.libraries, OPENS.answers),
            uses=(LIBRARY,),
            answers=(("c", "libc.so.6"), ("libz.so", LIBRARY), ("z", LIBRARY)),
        )

    def test_a_switch_is_reason_enough(self, root: str) -> None:
        install(root)
        row = {"dist": "pkg", "variable": "PKG_LIB", "value": "/run/lib", "reason": "it asks ldconfig"}
        policy = parse({"dlopen": {"switch": [row]}})

        (text,) = startups(root, {}, policy)

        assert isinstance(text, TextPlan)
        assert text.content == startup_file("pkg", {}, {}, [("PKG_LIB", "/run/lib")])

    def test_what_serves_nothing_any_more_goes(self, root: str) -> None:
        info = install(root)
        path = write(os.path.join(root, SITE, "nixpatch-pkg.pth"), startup_file("pkg", {"a": "/b"}, {}))

        (text,) = startups(root, {})

        assert text == TextPlan(path, info, TextKind.STARTUP, None, is_restored=True)

    @pytest.mark.parametrize("content", [b"import os\n", b""])
    def test_a_file_that_is_not_ours_stays(self, root: str, content: bytes) -> None:
        info = install(root, "pkg", {"pkg.py": b"", "nixpatch-pkg.pth": content})

        assert startups(root, {}) == []
        (finding,) = startups(root, {info: OPENS})
        assert isinstance(finding, Finding)
        assert finding.severity == "error"

    def test_a_file_of_another_dist_stays_whatever_it_begins_with(self, root: str) -> None:
        info = install(root)
        install(root, "other", {"nixpatch-pkg.pth": startup_file("pkg", {"a": "/b"}, {})})

        assert startups(root, {}) == []
        (finding,) = startups(root, {info: OPENS})
        assert isinstance(finding, Finding)

    def test_nothing_for_a_dist_without_record(self, root: str) -> None:
        info = install(root)
        os.unlink(os.path.join(info, "RECORD"))

        assert startups(root, {info: OPENS}) == []

    def test_dists_of_one_name_have_one_content(self, root: str) -> None:
        first = install(root)
        second = dist(os.path.join(root, SITE), "pkg", {"pkg.py": b""}, version="2.0")

        texts = startups(root, {first: OPENS, second: PythonLibraries({"libx.so": LIBRARY})})

        assert [text.info for text in texts if isinstance(text, TextPlan)] == [first, second]
        contents = {text.content for text in texts if isinstance(text, TextPlan)}
        assert contents == {startup_file("pkg", {"libz.so": LIBRARY, "libx.so": LIBRARY}, OPENS.answers)}


class TestScripts:
    """Scripts."""

    def test_a_program_of_the_store(self, root: str) -> None:
        path = script(root, b"#!/bin/bash -e")

        (text,) = scripts(root)

        assert isinstance(text, TextPlan)
        assert (text.path, text.kind, text.program, text.uses) == (
            path,
            TextKind.SCRIPT,
            "/bin/bash",
            (BASH,),
        )
        assert text.content == f"#!{BASH} -e\necho\n".encode()

    def test_one_that_the_machine_cannot_read_ends_the_run(self, root: str) -> None:
        """With no file left to open: it may have to be changed, so it is not left out in silence."""
        script(root, b"#!/bin/bash -e")
        scripts(root)  # imports what it needs
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        found = scan(root)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        try:
            with pytest.raises(MachineError, match="run nixpatch again"):
                list(plan_scripts(found, TARGET, STORE, {"bash": BASH}.get, {}))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    @pytest.mark.parametrize("name", ["python", "python3", "python3.9"])
    def test_a_python_of_the_system_is_that_of_the_venv(self, root: str, name: str) -> None:
        script(root, f"#!/usr/bin/{name}".encode())

        (text,) = scripts(root)

        assert isinstance(text, TextPlan)
        assert text.content == f"#!{root}/bin/python\necho\n".encode()
        assert text.uses == ()

    def test_another_python_is_not(self, root: str) -> None:
        script(root, b"#!/usr/bin/python2")
        (finding,) = scripts(root)
        assert isinstance(finding, Finding)
        assert "bin/python2" in finding.text

    @pytest.mark.parametrize(
        "line",
        [
            b"#!/bin/sh",
            b"#!/usr/bin/env bash",
            f"#!{BASH}".encode(),
            b"#!/elsewhere/venv/bin/python",
            b"#!bash",
            b"#!/bin/bash\r",
        ],
    )
    def test_what_runs_already_or_never(self, root: str, line: bytes) -> None:
        script(root, line)
        assert scripts(root) == []

    def test_the_pythons_own_launchers(self, root: str) -> None:
        script(root, f"#!{root}/bin/python".encode())
        assert scripts(root) == []

    def test_a_file_that_is_not_executable_or_a_link(self, root: str) -> None:
        path = script(root, b"#!/bin/bash")
        os.chmod(path, 0o644)
        assert scripts(root) == []
        os.chmod(path, 0o755)
        os.rename(path, os.path.join(root, "elsewhere"))
        os.symlink(os.path.join(root, "elsewhere"), path)
        assert scripts(root) == []

    def test_a_module_with_a_first_line_is_no_script_but_in_bin(self, root: str) -> None:
        script(root, b"#!/bin/bash", "pkg/main.py")
        assert scripts(root) == []
        script(root, b"#!/bin/bash", "../../../bin/main.py")
        assert len(scripts(root)) == 1

    def test_nothing_provides_it(self, root: str) -> None:
        path = script(root, b"#!/usr/bin/perl -w")
        (finding,) = scripts(root)
        assert isinstance(finding, Finding)
        assert (finding.severity, finding.path) == ("error", path)
        assert "#!/usr/bin/perl" in finding.text
        assert "bin/perl" in finding.text

    def test_a_program_of_the_system_is_no_replacement(self, root: str) -> None:
        """``--lib /usr/lib`` does not make ``/usr/bin/perl`` a program that NixOS has."""
        script(root, b"#!/bin/perl")
        (finding,) = scripts(root, store={"perl": "/usr/bin/perl"})
        assert isinstance(finding, Finding)

    def test_a_line_that_gets_too_long_is_reported(self, root: str) -> None:
        script(root, b"#!/bin/bash " + b"x" * 200)
        (finding,) = scripts(root)
        assert isinstance(finding, Finding)
        assert "cannot be changed" in finding.text

    def test_the_program_of_the_original_counts(self, root: str) -> None:
        """An earlier run wrote a store path that may be gone."""
        path = script(root, f"#!{STORE}/gone/bin/bash".encode())

        (text,) = scripts(root, {path: "/usr/bin/bash"})

        assert isinstance(text, TextPlan)
        assert text.program == "/usr/bin/bash"
        assert text.content == f"#!{BASH}\necho\n".encode()

    @pytest.mark.parametrize(("name", "severity"), [("../../../bin/run", "error"), ("pkg/tools/run", "note")])
    def test_only_what_users_start_must_have_its_program(self, root: str, name: str, severity: str) -> None:
        script(root, b"#!/usr/bin/node", name)

        (finding,) = scripts(root)

        assert isinstance(finding, Finding)
        assert (finding.severity, "nothing provides node" in finding.text) == (severity, True)
