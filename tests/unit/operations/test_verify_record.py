import base64
import hashlib
import os
from pathlib import Path

from nixpatch.installed.dist_records import TreeRecords
from nixpatch.installed.scan import scan
from nixpatch.operations.verify_record import check_rows


def dist(site: Path, name: str, files: dict[str, bytes]) -> None:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    rows = []
    for path, data in files.items():
        (site / path).write_bytes(data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(data)}\n")
    (info / "RECORD").write_text("".join(rows))


def test_several_processes_find_what_one_finds_in_the_same_order(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    for name in "abcde":
        dist(site, name, {f"{name}{number}.py": os.urandom(number * 1000) for number in range(5)})
    (site / "b3.py").write_bytes(b"another")
    (site / "d0.py").unlink()
    tree = scan(str(site))
    alone = list(check_rows(tree, TreeRecords(), {}, 1))
    assert [checked.rows for checked in alone] == [5] * 5
    assert [
        (os.path.basename(finding.path), finding.text.split(",")[0])
        for checked in alone
        for finding in checked.findings
    ] == [
        ("b3.py", "differs from RECORD"),
        ("d0.py", "RECORD lists it"),
    ]
    assert list(check_rows(tree, TreeRecords(), {}, 2)) == alone


def test_the_flag_that_pipx_adds_to_a_script_is_no_difference(tmp_path: Path) -> None:
    """Without this every environment of pipx would fail; any other change of the script still does."""
    site = tmp_path / "site-packages"
    dist(site, "a", {"tool": b"#!/venv/bin/python\nprint(1)\n", "other": b"#!/venv/bin/python\nprint(1)\n"})
    (site / "tool").write_bytes(b"#!/venv/bin/python -E\nprint(1)\n")
    (site / "other").write_bytes(b"#!/venv/bin/python -E\nprint(2)\n")

    (checked,) = check_rows(scan(str(site)), TreeRecords(), {}, 1)

    assert [os.path.basename(finding.path) for finding in checked.findings] == ["other"]
