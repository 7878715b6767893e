"""Text files of a dist, its RECORD and provenance: written together, taken back, finished after a kill."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nixpatch.errors import FileRefused
from nixpatch.installed import provenance
from nixpatch.installed.dist_records import DistRecords
from nixpatch.installed.provenance import PatchedText, Provenance
from nixpatch.installed.scan import scan
from nixpatch.installed.startup_file import startup_file
from nixpatch.model import Dist, Finding, TextKind, TextPlan, Tree
from nixpatch.operations.text_update import mark_pending, original_programs, restored_texts, update_texts
from support.installed_trees import SITE, dist, row, write
from support.recorded import sha256

BASH = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-bash-5/bin/bash"
OTHER_BASH = "/nix/store/1123456789abcdfghijklmnpqrsvwxyz-bash-6/bin/bash"
SCRIPT, PATCHED = b"#!/bin/bash -e\necho\n", f"#!{BASH} -e\necho\n".encode()
STARTUP = startup_file("pkg", {"libz.so": "/z"}, {})
RUN = "../../../bin/run"
PTH = "nixpatch-pkg.pth"


@dataclass(frozen=True)
class Texts:
    """A dist with a script."""

    root: str
    info: str

    @property
    def site(self) -> str:
        return os.path.join(self.root, SITE)

    @property
    def tree(self) -> Tree:
        return scan(self.root)

    @property
    def dist(self) -> Dist:
        (found,) = (dist for dist in self.tree.dists if dist.info == self.info)
        return found

    @property
    def records(self) -> DistRecords:
        return DistRecords(self.tree, self.info)

    @property
    def script(self) -> str:
        return os.path.join(self.root, "bin", "run")

    @property
    def startup(self) -> str:
        return os.path.join(self.site, PTH)

    def plans(self, program: str = BASH) -> list[TextPlan]:
        content = SCRIPT.replace(b"/bin/bash", program.encode(), 1)
        uses = (program,)
        return [
            TextPlan(self.script, self.info, TextKind.SCRIPT, content, program="/bin/bash", uses=uses),
            TextPlan(self.startup, self.info, TextKind.STARTUP, STARTUP, uses=("/z",)),
        ]

    def update(self, *plans: TextPlan) -> tuple[Finding, ...]:
        return update_texts(self.records, plans or self.plans(), tool="test", durable=False)

    def restored(self) -> list[TextPlan | Finding]:
        return list(restored_texts(self.tree, self.dist, self.records))

    def restore(self) -> list[Finding]:
        found = self.restored()
        plans = [text for text in found if isinstance(text, TextPlan)]
        findings = [text for text in found if isinstance(text, Finding)]
        return [*findings, *(self.update(*plans) if plans else ())]

    def entries(self) -> dict[str, PatchedText]:
        known = self.records.read_provenance()
        return dict(known.texts) if known else {}

    def write_entries(self, **entries: PatchedText) -> None:
        data = provenance.dump(Provenance("t", {}, texts=entries))
        write(os.path.join(self.info, provenance.NAME), data)

    def record(self) -> list[bytes]:
        return read(os.path.join(self.info, "RECORD")).splitlines()


@pytest.fixture
def texts(tmp_path: Path) -> Texts:
    root = os.path.realpath(tmp_path)
    write(os.path.join(root, "pyvenv.cfg"), b"")
    info = dist(os.path.join(root, SITE), "pkg", {RUN: SCRIPT, "pkg.py": b""})
    return Texts(root, info)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def pending(texts: Texts, program: str = BASH) -> list[bool]:
    return [text.pending for text in mark_pending(texts.plans(program), texts.records)]


def test_there_and_back_again(texts: Texts) -> None:
    before = read(os.path.join(texts.info, "RECORD"))

    assert texts.update() == ()

    assert read(texts.script) == PATCHED
    assert os.stat(texts.script).st_mode & 0o777 == 0o755
    assert read(texts.startup) == STARTUP
    assert row(RUN, PATCHED) in texts.record()
    assert row(PTH, STARTUP) in texts.record()
    assert texts.entries() == {
        RUN: PatchedText(TextKind.SCRIPT, sha256(PATCHED), sha256(SCRIPT), "/bin/bash", (BASH,)),
        PTH: PatchedText(TextKind.STARTUP, sha256(STARTUP), uses=("/z",)),
    }
    assert pending(texts) == [False, False]

    assert texts.restore() == []
    assert read(texts.script) == SCRIPT
    assert not os.path.lexists(texts.startup)
    assert read(os.path.join(texts.info, "RECORD")) == before
    assert not os.path.lexists(os.path.join(texts.info, provenance.NAME))


def test_what_differs_is_pending(texts: Texts) -> None:
    assert pending(texts) == [True, True]
    texts.update()
    assert pending(texts, OTHER_BASH) == [True, False]
    write(texts.startup, STARTUP + b"#\n")
    assert pending(texts) == [False, True]


def test_another_program_keeps_the_original(texts: Texts) -> None:
    texts.update()
    assert original_programs(texts.dist, texts.records) == {texts.script: "/bin/bash"}

    assert texts.update(*texts.plans(OTHER_BASH)) == ()

    assert texts.entries()[RUN].original == sha256(SCRIPT)
    assert texts.entries()[RUN].uses == (OTHER_BASH,)
    assert texts.restore() == []
    assert read(texts.script) == SCRIPT


class TestKilled:
    """What a killed run leaves."""

    def test_a_script_was_announced_only(self, texts: Texts) -> None:
        entry = PatchedText(
            TextKind.SCRIPT, sha256(SCRIPT), sha256(SCRIPT), "/bin/bash", (BASH,), sha256(PATCHED)
        )
        texts.write_entries(**{RUN: entry})
        assert pending(texts) == [True, True]

        assert texts.restore() == []
        assert read(texts.script) == SCRIPT

    def test_a_script_was_written_and_no_row(self, texts: Texts) -> None:
        self.test_a_script_was_announced_only(texts)
        entry = PatchedText(
            TextKind.SCRIPT, sha256(SCRIPT), sha256(SCRIPT), "/bin/bash", (BASH,), sha256(PATCHED)
        )
        texts.write_entries(**{RUN: entry})
        write(texts.script, PATCHED, 0o755)
        assert original_programs(texts.dist, texts.records) == {texts.script: "/bin/bash"}
        assert pending(texts)[0]

        assert texts.update() == ()
        assert row(RUN, PATCHED) in texts.record()
        assert not texts.entries()[RUN].next_sha256

    @pytest.mark.parametrize("row_of", [PATCHED, PATCHED.replace(BASH.encode(), OTHER_BASH.encode())])
    def test_the_script_of_another_dist_was_taken_back_already(self, texts: Texts, row_of: bytes) -> None:
        texts.update()
        entry = replace(texts.entries()[RUN], next_sha256=sha256(row_of))
        texts.write_entries(**{RUN: entry})
        record = os.path.join(texts.info, "RECORD")
        write(record, read(record).replace(row(RUN, PATCHED), row(RUN, row_of)))
        write(texts.script, SCRIPT, 0o755)

        assert texts.restore() == []
        assert row(RUN, SCRIPT) in texts.record()

    def test_a_start_up_file_that_nothing_records_goes(self, texts: Texts) -> None:
        write(texts.startup, STARTUP)
        assert texts.restore() == []
        assert not os.path.lexists(texts.startup)

    def test_a_row_of_a_start_up_file_that_is_gone_goes(self, texts: Texts) -> None:
        record = os.path.join(texts.info, "RECORD")
        before = read(record)
        write(record, before + row(PTH, STARTUP) + b"\n")
        assert texts.restore() == []
        assert read(record) == before


class TestRecord:
    """Rows."""

    def test_a_wrong_row_stays_wrong(self, texts: Texts) -> None:
        record = os.path.join(texts.info, "RECORD")
        write(record, read(record).replace(row(RUN, SCRIPT), row(RUN, b"else")))

        (finding,) = texts.update()

        assert (finding.severity, finding.path) == ("error", texts.script)
        assert row(RUN, b"else") in texts.record()
        assert row(PTH, STARTUP) in texts.record()

    def test_unless_it_is_accepted(self, texts: Texts) -> None:
        record = os.path.join(texts.info, "RECORD")
        write(record, read(record).replace(row(RUN, SCRIPT), row(RUN, b"else")))
        plans = texts.plans()

        assert update_texts(texts.records, plans, tool="t", accept_modified=True) == ()

        assert row(RUN, PATCHED) in texts.record()

    @pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512", "md5"])
    def test_the_algorithm_of_a_row_stays_if_it_may(self, texts: Texts, algorithm: str) -> None:
        record = os.path.join(texts.info, "RECORD")
        write(record, read(record).replace(row(RUN, SCRIPT), row(RUN, SCRIPT, algorithm)))

        assert texts.update() == ()

        assert row(RUN, PATCHED, "sha256" if algorithm == "md5" else algorithm) in texts.record()

    @pytest.mark.parametrize("spelled", ["./" + RUN, "{root}/bin/run", RUN.replace("/", "\\")])
    def test_every_spelling_of_the_path(self, texts: Texts, spelled: str) -> None:
        spelled = spelled.format(root=texts.root)
        record = os.path.join(texts.info, "RECORD")
        write(record, read(record).replace(RUN.encode(), spelled.encode()))

        assert texts.update() == ()

        assert row(spelled, PATCHED) in texts.record()

    @pytest.mark.parametrize("fields", [b",,", b",sha256=,", b",,20"])
    def test_a_row_without_digest(self, texts: Texts, fields: bytes) -> None:
        record = os.path.join(texts.info, "RECORD")
        write(record, read(record).replace(row(RUN, SCRIPT), RUN.encode() + fields))
        texts.update()
        assert [line for line in texts.record() if line.startswith(RUN.encode())]

    def test_a_signature_of_record_stays(self, texts: Texts) -> None:
        signature = write(os.path.join(texts.info, "RECORD.jws"), b"{}")
        (finding,) = texts.update()
        assert finding.severity == "note"
        assert read(signature) == b"{}"

    def test_too_many_rows_are_refused_before_anything_is_written(
        self, texts: Texts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nixpatch.installed.record._MAX_ROWS", 2)
        with pytest.raises(FileRefused):
            update_texts(texts.records, texts.plans(), tool="t", durable=False)
        assert read(texts.script) == SCRIPT
        assert not os.path.lexists(texts.startup)


class TestBelief:
    """What provenance and plans are believed."""

    def test_a_script_that_changed_since_the_plan_stays(self, texts: Texts) -> None:
        plans = texts.plans()
        write(texts.script, SCRIPT + b"more\n", 0o755)
        with pytest.raises(OSError, match="changed while"):
            texts.update(*plans)
        assert read(texts.script) == SCRIPT + b"more\n"

    def test_a_script_that_became_a_link_is_not_followed(self, texts: Texts) -> None:
        victim = write(os.path.join(texts.root, "victim"), SCRIPT, 0o755)
        plans = texts.plans()
        os.unlink(texts.script)
        os.symlink(victim, texts.script)
        with pytest.raises(OSError, match=r"symbolic links|Too many levels"):
            texts.update(*plans)
        assert read(victim) == SCRIPT

    @pytest.mark.parametrize("program", ["/bin/ba sh", "/bin/bash\n#", "bash", "", "/bin/zsh", "/bin/bash\0"])
    def test_a_program_that_does_not_give_the_original(self, texts: Texts, program: str) -> None:
        texts.update()
        if "\0" in program:
            program = "/bin/bash\t"
        entry = replace(texts.entries()[RUN], program=program)
        texts.write_entries(**{RUN: entry})

        assert original_programs(texts.dist, texts.records) == {}
        found = [text for text in texts.restored() if isinstance(text, Finding)]
        assert [finding.path for finding in found] == [texts.script]

    @pytest.mark.parametrize(
        "key", ["../../../bin/other", "../../../pyvenv.cfg", "../../../../outside", "/etc/passwd", ".", ""]
    )
    @pytest.mark.parametrize("kind", list(TextKind))
    def test_a_file_that_is_not_of_the_dist(self, texts: Texts, key: str, kind: TextKind) -> None:
        write(os.path.join(texts.root, "bin", "other"), PATCHED, 0o755)
        entry = PatchedText(kind, sha256(PATCHED), sha256(SCRIPT), "/bin/bash", (BASH,))
        texts.write_entries(**{key: entry})

        (finding,) = texts.restored()

        assert isinstance(finding, Finding)
        assert "not of this dist" in finding.text
        assert original_programs(texts.dist, texts.records) == {}

    def test_a_start_up_file_that_another_program_wrote_stays(self, texts: Texts) -> None:
        texts.update()
        write(texts.startup, b"import sys\n")
        (finding, *others) = sorted(texts.restored(), key=lambda text: isinstance(text, TextPlan))
        assert isinstance(finding, Finding)
        assert finding.path == texts.startup
        assert [text.path for text in others] == [texts.script]
