import tomllib
from importlib import resources

import pytest

from nixpatch.model import Libc
from nixpatch.policy import Policy, PolicyError, Rule, default_policy, matches, parse
from nixpatch.resolve.manylinux import policies

POLICY = default_policy()


@pytest.mark.parametrize(
    ("soname", "libc"),
    [
        ("libc.so.6", Libc.GLIBC),
        ("libm.so.6", Libc.GLIBC),
        ("libpthread.so.0", Libc.GLIBC),
        ("ld-linux-x86-64.so.2", Libc.GLIBC),
        ("ld-linux-aarch64.so.1", Libc.GLIBC),
        ("ld64.so.2", Libc.GLIBC),
        ("libnss_dns.so.2", Libc.GLIBC),
        ("ld-musl-x86_64.so.1", Libc.MUSL),
        ("libc.musl-aarch64.so.1", Libc.MUSL),
        ("libc.so", Libc.MUSL),
        ("libcrypt.so.1", None),
        ("libnss3.so", None),
        ("libm.so", None),
        ("libpthread-2a3b4c.so.0", None),
        ("libc++.so.1", None),
        ("LIBC.SO.6", None),
    ],
)
def test_parts_of_a_libc(soname: str, libc: Libc | None) -> None:
    assert POLICY.libc_of(soname) is libc


@pytest.mark.parametrize(
    ("soname", "driver"),
    [
        ("libcuda.so.1", True),
        ("libnvidia-ml.so.1", True),
        ("libGLX_nvidia.so.0", True),
        ("libcudart.so.12", False),
        ("libcublas.so.12", False),
        ("libcudnn.so.9", False),
        ("libnvrtc.so.12", False),
        ("libGL.so.1", False),
    ],
)
def test_drivers_are_those_of_the_kernel_module(soname: str, driver: bool) -> None:
    assert POLICY.is_driver(soname) is driver


@pytest.mark.parametrize(
    ("soname", "system"),
    [("libstdc++.so.6", True), ("libz.so.1", True), ("libGL.so.1", True), ("libssl.so.3", False)],
)
def test_libraries_that_a_wheel_may_expect(soname: str, system: bool) -> None:
    assert POLICY.is_system(soname) is system


@pytest.mark.parametrize(
    ("path", "soname", "reason"),
    [
        ("/s/PySide6/Qt/plugins/sqldrivers/libqsqlmysql.so", "libmysqlclient.so.21", "SQL"),
        ("/s/PySide6/Qt/plugins/sqldrivers/libqsqlmysql.so", "libssl.so.3", None),
        ("/s/PySide6/libx.so", "libmysqlclient.so.21", None),
        ("/s/nvidia/nvshmem/lib/x.so", "libmlx5.so.1", "RDMA"),
        ("/s/torch/lib/x.so", "libmlx5.so.1", None),
    ],
)
def test_rules_for_what_may_be_missing(path: str, soname: str, reason: str | None) -> None:
    told = POLICY.ignored(path, soname)
    assert told is None if reason is None else reason in (told or "")


def test_rows_that_are_added_come_first_and_apply_to_every_file() -> None:
    policy = POLICY.extended(Policy(ignore=(Rule("*", ("libmlx5.so.*", "libfoo*"), "--ignore-missing"),)))
    assert policy.ignored("/s/nvidia/x.so", "libmlx5.so.1") == "--ignore-missing"
    assert policy.ignored("/anything", "libfoo-2.so") == "--ignore-missing"
    assert policy.ignored("/anything", "libbar.so") is None
    assert POLICY.extended(Policy()) == POLICY


def test_globs_match_the_whole_name() -> None:
    assert matches("libx.so.1", ("*.so.?",))
    assert not matches("libx.so.12", ("*.so.?",))
    assert not matches("libx.so.1", ())


def test_every_rule_of_the_file_has_a_reason_and_can_apply() -> None:
    data = tomllib.loads(resources.files("nixpatch").joinpath("data/policy.toml").read_text("utf-8"))
    policy: Policy = parse(data)
    assert policy.driver_directory == "/run/opengl-driver/lib"
    for rule in policy.ignore:
        assert rule.reason
        assert rule.sonames
        assert policy.ignored(rule.file.replace("*", "x"), rule.sonames[0].replace("*", "1")) is not None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[driver]", "driver: no such table"),
        ("drivers = 1", "drivers: not a table"),
        ("[drivers]\nsonames = 'libx.so'", "drivers.sonames: not a list of strings"),
        ("[drivers]\ndirectory = []", "drivers.directory: not a string"),
        ("[drivers]\nsoname = ['x']", "drivers.soname: no such key"),
        ("ignore = 3", "ignore: not a list of tables"),
        ("ignore = [1]", "ignore, row 1: not a table"),
        ("[[ignore]]\nfile = '*'\nsonames = ['x']", "ignore, row 1: reason is missing; a row has file, "),
        ("[[ignore]]\nfile = '*'\nsonames = ['x']\nreason = 3", "ignore, row 1: reason is not a string"),
        ("[[ignore]]\nfile = '*'\nreason = 'r'", "ignore, row 1: sonames is missing"),
        (
            "[[runtime]]\nfile = '*'\nreason = 'r'\nsonames = []\nsoname = 'x'",
            "runtime, row 1: soname: no such key",
        ),
        ("[[runtime]]\nfile = '*'\nreason = 'x'\nsonames = [1]", "runtime, row 1.sonames: not a list"),
    ],
)
def test_what_is_no_rule_is_named(text: str, why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        parse(tomllib.loads(text))


@pytest.mark.parametrize(
    ("names", "holds"),
    [
        (["libz.so.1", "libc.so.6"], True),
        (["libc-2.31.so"], True),
        (["ld-linux-x86-64.so.2"], True),
        (["libc.so"], True),
        (["libm.so.6", "libnss_systemd.so.2"], False),
        (["libcap.so.2", "libc++.so.1"], False),
    ],
)
def test_directories_that_no_search_path_may_name(names: list[str], holds: bool) -> None:
    assert POLICY.holds_libc(names) is holds


def test_the_first_need_that_names_a_libc_decides() -> None:
    assert POLICY.libc_needed(["libz.so.1", "libm.so.6", "libc.so"]) is Libc.GLIBC
    assert POLICY.libc_needed(["libz.so.1", "libc.musl-x86_64.so.1"]) is Libc.MUSL
    assert POLICY.libc_needed(["libz.so.1"]) is None


def test_what_wheels_may_expect_is_what_the_manylinux_policies_promise_but_for_libc() -> None:
    promised = {name for policy in policies() for name in policy.libraries}
    assert {name for name in promised if POLICY.libc_of(name) is None} == set(POLICY.system)
    assert not POLICY.is_system("libm.so.6")


def test_every_row_about_dlopen_has_a_reason() -> None:
    rows = POLICY.dlopen
    reasons = [
        *(row.reason for row in rows.openers),
        *(row.reason for row in (*rows.names, *rows.never)),
        *(row.reason for row in rows.switches),
    ]
    assert reasons
    assert all(reasons)
    assert ("triton", "TRITON_LIBCUDA_PATH") in {(row.dist, row.variable) for row in rows.switches}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"what": []}, "dlopen.what: no such table"),
        ({"never": {}}, "dlopen.never: not a list of tables"),
        ({"never": [{"file": "*", "sonames": ["x"]}]}, "dlopen.never, row 1: reason is missing"),
        ({"opener": [{"symbols": "f", "libraries": [], "reason": "r"}]}, "dlopen.opener, row 1.symbols"),
        ({"switch": [{"dist": "d", "value": "v", "reason": "r"}]}, "dlopen.switch, row 1: variable"),
    ],
)
def test_wrong_rows_about_dlopen_are_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        parse({"dlopen": table})
