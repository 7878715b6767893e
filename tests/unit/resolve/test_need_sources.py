"""Which of all places meets a need, and what is told where none does."""

import os
from dataclasses import replace

import pytest

from nixpatch.model import ElfFacts, Libc, Origin, SkipReason, Source, Tag
from nixpatch.policy import Policy, Rule
from support.resolving import (
    AARCH64,
    DRIVERS,
    GLIBC,
    I686,
    MUSL_TARGET,
    SITE,
    STORE,
    TARGET,
    X86_64,
    World,
    elf,
    provider,
)

ZLIB = f"{STORE}/1-zlib/lib/libz.so.1"
STDCXX = f"{STORE}/2-gcc/lib/libstdc++.so.6"
SSL = f"{STORE}/3-openssl/lib/libssl.so.3"
FOO = f"{STORE}/4-foo/lib/libfoo.so.1"


def test_absolute_need_that_is_there() -> None:
    world = World({"a/x.so": elf(FOO, "/opt/gone.so")}, elsewhere={FOO: X86_64})
    assert world.answer("a/x.so", FOO).origin is Origin.ABSOLUTE
    gone = world.answer("a/x.so", "/opt/gone.so")
    assert gone.origin is Origin.MISSING
    assert gone.considered == ("/opt/gone.so: no such file for x86_64",)


def test_absolute_need_of_another_machine_is_missing() -> None:
    world = World({"a/x.so": elf(FOO)}, elsewhere={FOO: I686}, store=[provider(FOO)])
    assert world.answer("a/x.so", FOO).origin is Origin.MISSING


def test_need_relative_to_the_file() -> None:
    need = "$ORIGIN/../b/liby.so"
    world = World({"a/x.so": elf(need), "b/liby.so": elf(soname="liby.so")})
    found = world.answer("a/x.so", need)
    assert (found.origin, found.path) == (Origin.ABSOLUTE, f"{SITE}/b/liby.so")
    assert world.plan("a/x.so").edit is None


def test_need_relative_to_the_current_directory_is_never_met() -> None:
    # Not even if there happens to be such a file where nixpatch runs.
    world = World({"a/x.so": elf("sub/liby.so"), "a/sub/liby.so": elf()}, elsewhere={"sub/liby.so": X86_64})
    found = world.answer("a/x.so", "sub/liby.so")
    assert found.origin is Origin.MISSING
    assert "current directory" in found.considered[0]


def test_libc_is_left_to_the_loader_even_where_the_store_and_the_dist_have_one() -> None:
    other = f"{STORE}/9-glibc/lib/libm.so.6"
    world = World({"a/x.so": elf("libc.so.6", "libm.so.6"), "a/libm.so.6": elf()}, store=[provider(other)])
    for need in ("libc.so.6", "libm.so.6"):
        found = world.answer("a/x.so", need)
        assert (found.origin, found.entry, found.path) == (Origin.LIBC, None, f"{GLIBC}/{need}")
    assert world.plan("a/x.so").edit is None


def test_part_of_glibc_that_the_targets_glibc_no_longer_has() -> None:
    nsl = f"{STORE}/5-libnsl/lib/libnsl.so.1"
    world = World({"a/x.so": elf("libnsl.so.1")}, store=[provider(nsl)])
    assert world.answer("a/x.so", "libnsl.so.1").origin is Origin.STORE


def test_without_default_directories_even_libc_needs_an_entry() -> None:
    world = World({"a/x.so": elf("libc.so.6", no_default_lib=True)})
    assert world.answer("a/x.so", "libc.so.6").entry == GLIBC
    assert world.search_path("a/x.so") == GLIBC
    assert world.patched("a/x.so").plan("a/x.so").edit is None


def test_own_search_path_comes_before_all_but_libc() -> None:
    world = World(
        {
            "a/x.so": elf("libz.so.1", path="$ORIGIN/../b.libs"),
            "b.libs/libz.so.1": elf(),
            "a/libz.so.1": elf(),
        },
        store=[provider(ZLIB)],
    )
    found = world.answer("a/x.so", "libz.so.1")
    assert (found.origin, found.entry) == (Origin.OWN_PATH, "$ORIGIN/../b.libs")
    assert world.plan("a/x.so").edit is None


@pytest.mark.parametrize(
    ("path", "met"),
    [
        (f"{STORE}/1-zlib/lib", True),  # an earlier tool's work
        (f"{STORE}/gone-zlib/lib", False),
        ("/usr/lib", False),
        ("", False),
    ],
)
def test_store_directory_of_an_existing_search_path(path: str, met: bool) -> None:
    world = World({"a/x.so": elf("libz.so.1", path=path)}, store=[provider(ZLIB)])
    world.elsewhere["/usr/lib/libz.so.1"] = X86_64
    origin = world.answer("a/x.so", "libz.so.1").origin
    assert origin is (Origin.OWN_PATH if met else Origin.STORE)
    assert (world.plan("a/x.so").edit is None) is met
    assert world.search_path("a/x.so") == f"{STORE}/1-zlib/lib"


def test_scipy() -> None:
    """B1, B2: a RUNPATH of its own would cut libgfortran off from the RPATH that it inherits."""
    world = World(
        {
            "scipy/linalg/_fblas.so": elf(
                "libgfortran-8f.so.5", path="$ORIGIN/../../scipy.libs", tag=Tag.RPATH, soname="_fblas.so"
            ),
            "scipy.libs/libgfortran-8f.so.5": elf("libquadmath-82.so.0", "libz.so.1", "libgcc_s.so.1"),
            "scipy.libs/libquadmath-82.so.0": elf("libm.so.6"),
        },
        store=[provider(ZLIB), provider(f"{STORE}/2-gcc/lib/libgcc_s.so.1")],
    )
    assert world.plan("scipy/linalg/_fblas.so").edit is None
    assert world.plan("scipy.libs/libquadmath-82.so.0").edit is None
    plan = world.plan("scipy.libs/libgfortran-8f.so.5")
    assert [answer.origin for answer in plan.answers] == [Origin.OWN_DIST, Origin.STORE, Origin.STORE]
    assert plan.after is not None
    assert plan.after.tag is Tag.RUNPATH
    assert plan.after.search_path == f"$ORIGIN:{STORE}/1-zlib/lib:{STORE}/2-gcc/lib"


def torch() -> World:
    return World(
        {
            "torch/lib/libtorch.so": elf("libcublas.so.12", "libcuda.so.1"),
            "nvidia/cublas/lib/libcublas.so.12": elf("libcublasLt.so.12"),
            "nvidia/cublas/lib/libcublasLt.so.12": elf("libc.so.6"),
            "aaa/libcublas.so.12": elf(),
        },
        requires={
            "torch": (
                'nvidia==12; platform_machine == "x86_64"',
                'aaa; extra == "never"',
                'aaa; python_version < "3"',
            )
        },
    )


def test_torch_takes_the_libraries_of_the_dist_that_it_requires() -> None:
    world = torch()
    found = world.answer("torch/lib/libtorch.so", "libcublas.so.12")
    assert found.origin is Origin.OTHER_DIST
    assert found.path == f"{SITE}/nvidia/cublas/lib/libcublas.so.12"
    assert world.search_path("torch/lib/libtorch.so") == f"$ORIGIN/../../nvidia/cublas/lib:{DRIVERS}"
    assert world.search_path("nvidia/cublas/lib/libcublas.so.12") == "$ORIGIN"


def test_dist_that_is_required_over_another_wins_too() -> None:
    world = torch()
    world.requires = {"torch": ("meta[cublas]",), "meta": ('nvidia; extra == "cublas"',)}
    assert (
        world.answer("torch/lib/libtorch.so", "libcublas.so.12").path
        == f"{SITE}/nvidia/cublas/lib/libcublas.so.12"
    )


def test_only_a_strangers_copy_is_better_than_none() -> None:
    world = World({"a/x.so": elf("libodd.so"), "b/libodd.so": elf()})
    assert world.answer("a/x.so", "libodd.so").path == f"{SITE}/b/libodd.so"


def test_copy_in_another_dist_that_is_too_old_is_passed_over() -> None:
    wants = {"libfoo.so.1": ["FOO_2"]}
    world = World(
        {"a/x.so": elf("libfoo.so.1", wants=wants), "b/libfoo.so.1": elf(defs=["FOO_1"])},
        store=[provider(FOO, defs=["FOO_1", "FOO_2"])],
    )
    assert world.answer("a/x.so", "libfoo.so.1").origin is Origin.STORE
    world.store = []
    missing = world.answer("a/x.so", "libfoo.so.1")
    assert missing.origin is Origin.MISSING
    assert f"{SITE}/b/libfoo.so.1: does not define FOO_2" in missing.considered
    world.files["c/libfoo.so.1"] = elf(defs=["FOO_2"])
    assert world.answer("a/x.so", "libfoo.so.1").path == f"{SITE}/c/libfoo.so.1"


def test_nearest_of_several_copies_in_the_own_dist() -> None:
    world = World({"a/sub/x.so": elf("liby.so"), "a/liby.so": elf(), "a/other/liby.so": elf()})
    assert world.answer("a/sub/x.so", "liby.so").entry == "$ORIGIN/.."


def test_files_of_no_dist_are_siblings_of_each_other() -> None:
    world = World({"b/liby.so": elf()}, unowned={"p/x.so": elf("liby.so"), "q/liby.so": elf()})
    found = world.answer("p/x.so", "liby.so")
    assert (found.origin, found.entry) == (Origin.OWN_DIST, "$ORIGIN/../q")


def test_library_behind_a_link_of_its_soname() -> None:
    # As `make install` leaves it; wheels hold no links.
    world = World(
        unowned={"bin/x.so": elf("liby.so.1"), "lib/liby.so.1.2.3": elf(soname="liby.so.1")},
        links={"lib/liby.so.1": "lib/liby.so.1.2.3"},
    )
    found = world.answer("bin/x.so", "liby.so.1")
    assert (found.origin, found.path) == (Origin.OWN_DIST, f"{SITE}/lib/liby.so.1")
    # Without the link ld.so does not find the file, but takes it if it is loaded already.
    world.links = {}
    found = world.answer("bin/x.so", "liby.so.1")
    assert (found.path, found.entry) == (f"{SITE}/lib/liby.so.1.2.3", None)
    assert "only once liby.so.1.2.3" in found.detail
    assert world.plan("bin/x.so").edit is None


def test_a_file_that_ld_so_can_open_rather_than_one_that_must_be_loaded_before() -> None:
    world = World(
        {"a/x.so": elf("libfoo.so.1"), "a/foo.so": elf(soname="libfoo.so.1")}, store=[provider(FOO)]
    )
    assert world.answer("a/x.so", "libfoo.so.1").path == FOO


def test_a_library_of_this_soname_that_lacks_a_version_does_not_serve() -> None:
    files = {
        "a/x.so": elf("liby.so.1", wants={"liby.so.1": ["Y_2"]}),
        "a/y.so": elf(soname="liby.so.1", defs=["Y_1"]),
    }
    assert World(files).answer("a/x.so", "liby.so.1").origin is Origin.MISSING


def test_a_library_that_needs_its_own_soname_has_it() -> None:
    world = World({"a/liby.so.1": elf("liby.so.1", soname="liby.so.1")})
    assert world.answer("a/liby.so.1", "liby.so.1").path == f"{SITE}/a/liby.so.1"
    assert world.plan("a/liby.so.1").edit is None


def _two_dists(**options: str) -> World:
    return World(
        {
            "a/x.so": elf("libv.so.1", wants={"libv.so.1": ["V1"]}, path=options.get("path")),
            "a.libs/libv.so.1": elf(soname="libv.so.1", defs=["V1"]),
            "b/x.so": elf("libv.so.1", wants={"libv.so.1": ["V1", "V2"]}),
            "b.libs/libv.so.1": elf(soname="libv.so.1", defs=["V1", "V2"]),
        }
    )


def test_of_two_dists_the_library_that_has_every_wanted_version_serves_both() -> None:
    world = _two_dists()
    for user in ("a/x.so", "b/x.so"):
        assert world.answer(user, "libv.so.1").path == f"{SITE}/b.libs/libv.so.1"


def test_the_store_serves_both_where_no_dist_has_every_version() -> None:
    store = provider(f"{STORE}/7-v/lib/libv.so.1", defs=["V1", "V2", "V3"])
    world = _two_dists()
    world.files["c/x.so"] = elf("libv.so.1", wants={"libv.so.1": ["V3"]})
    world.store = [store]
    for user in ("a/x.so", "b/x.so", "c/x.so"):
        assert world.answer(user, "libv.so.1").entry == store.directory


def test_each_keeps_its_own_where_nothing_has_every_version() -> None:
    world = _two_dists()
    world.files["c/x.so"] = elf("libv.so.1", wants={"libv.so.1": ["V3"]})
    assert world.answer("a/x.so", "libv.so.1").path == f"{SITE}/a.libs/libv.so.1"
    assert world.answer("c/x.so", "libv.so.1").origin is Origin.MISSING


def test_system_library_from_the_store_rather_than_from_a_stranger() -> None:
    files = {"a/x.so": elf("libstdc++.so.6", "libssl.so.3")}
    strangers = {"b/libstdc++.so.6": elf(), "b/libssl.so.3": elf()}
    world = World(files | strangers, store=[provider(STDCXX), provider(SSL)])
    assert world.answer("a/x.so", "libstdc++.so.6").origin is Origin.STORE
    assert world.answer("a/x.so", "libssl.so.3").origin is Origin.OTHER_DIST
    world.files["a.libs/libstdc++.so.6"] = elf()
    assert world.answer("a/x.so", "libstdc++.so.6").origin is Origin.OWN_DIST
    del world.files["a.libs/libstdc++.so.6"]
    world.store = []
    assert world.answer("a/x.so", "libstdc++.so.6").origin is Origin.OTHER_DIST


def test_driver_libraries_are_never_pinned() -> None:
    pinned = f"{STORE}/7-nvidia-x11/lib/libcuda.so.1"
    world = World(
        {"a/x.so": elf("libcuda.so.1", "libz.so.1"), "b/libcuda.so.1": elf()},
        store=[provider(pinned), provider(ZLIB)],
    )
    found = world.answer("a/x.so", "libcuda.so.1")
    assert (found.origin, found.entry, found.path) == (Origin.DRIVER, None, None)
    assert world.search_path("a/x.so") == f"{STORE}/1-zlib/lib:{DRIVERS}"


def test_stub_to_link_against_is_no_driver_even_in_the_own_dist() -> None:
    world = World({"a/x.so": elf("libcuda.so.1"), "a/lib/stubs/libcuda.so.1": elf()})
    assert world.answer("a/x.so", "libcuda.so.1").origin is Origin.DRIVER
    assert world.search_path("a/x.so") == DRIVERS


def test_driver_directory_that_is_there_already() -> None:
    world = World({"a/x.so": elf("libcuda.so.1", path=f"{DRIVERS}:$ORIGIN")})
    assert world.plan("a/x.so").edit is None
    world.files["a/x.so"] = elf("libcuda.so.1", "libz.so.1", path=f"{DRIVERS}:$ORIGIN")
    world.store = [provider(ZLIB)]
    assert world.search_path("a/x.so") == f"$ORIGIN:{STORE}/1-zlib/lib:{DRIVERS}"


def test_store_says_from_which_source() -> None:
    world = World({"a/x.so": elf("libz.so.1")}, store=[provider(ZLIB, source=Source.LIB), provider(FOO)])
    found = world.answer("a/x.so", "libz.so.1")
    assert (found.entry, found.path, found.detail) == (f"{STORE}/1-zlib/lib", ZLIB, "--lib")


def test_one_provider_for_the_whole_tree() -> None:
    old, new = f"{STORE}/1-gcc/lib/libstdc++.so.6", STDCXX
    world = World(
        {
            "a/x.so": elf("libstdc++.so.6", wants={"libstdc++.so.6": ["GLIBCXX_3.4"]}),
            "b/y.so": elf("libstdc++.so.6", wants={"libstdc++.so.6": ["GLIBCXX_3.4.29"]}),
        },
        store=[provider(old, defs=["GLIBCXX_3.4"]), provider(new, defs=["GLIBCXX_3.4", "GLIBCXX_3.4.29"])],
    )
    assert {world.answer(name, "libstdc++.so.6").path for name in world.files} == {new}
    # A file of another machine never meets the library, so what it wants does not count.
    world.files["b/y.so"] = replace(world.files["b/y.so"], machine=AARCH64)
    assert world.answer("a/x.so", "libstdc++.so.6").path == old


def test_version_that_nobody_defines_leaves_only_the_file_that_wants_it_without() -> None:
    world = World(
        {
            "a/x.so": elf("libstdc++.so.6", wants={"libstdc++.so.6": ["GLIBCXX_3.4"]}),
            "b/y.so": elf("libstdc++.so.6", wants={"libstdc++.so.6": ["GLIBCXX_9"]}),
        },
        store=[provider(STDCXX, defs=["GLIBCXX_3.4"])],
    )
    assert world.answer("a/x.so", "libstdc++.so.6").origin is Origin.STORE
    missing = world.answer("b/y.so", "libstdc++.so.6")
    assert missing.origin is Origin.MISSING
    assert f"{STDCXX}: does not define GLIBCXX_9" in missing.considered


def test_ignored_only_where_nothing_meets_it() -> None:
    world = World({"a/x.so": elf("libz.so.1", "libodd.so")}, store=[provider(ZLIB)])
    world.policy = world.policy.extended(Policy(ignore=(Rule("*", ("lib*",), "--ignore-missing"),)))
    assert world.answer("a/x.so", "libz.so.1").origin is Origin.STORE
    odd = world.answer("a/x.so", "libodd.so")
    assert (odd.origin, odd.detail) == (Origin.IGNORED, "--ignore-missing")


def test_rule_about_a_file() -> None:
    rule = Rule("*/plugins/*", ("libpq.so.*",), "optional")
    world = World({"a/plugins/x.so": elf("libpq.so.5"), "a/x.so": elf("libpq.so.5")})
    world.policy = replace(world.policy, ignore=(rule,))
    assert world.answer("a/plugins/x.so", "libpq.so.5").detail == "optional"
    assert world.answer("a/x.so", "libpq.so.5").origin is Origin.MISSING


def test_missing_tells_every_place_in_order() -> None:
    world = World(
        {"a/x.so": elf("libfoo.so.1", path="$ORIGIN/sub::/usr/lib")},
        store=[provider(FOO, machine=I686), provider(FOO.replace("4", "5"), libc_needs=["GLIBC_2.50"])],
    )
    assert world.answer("a/x.so", "libfoo.so.1").considered == (
        "own search path $ORIGIN/sub: not there",
        "own search path (empty): not used, empty or relative: ld.so reads it as the current directory",
        "own search path /usr/lib: not used, directory of the machine that built it, or of the FHS",
        "own dist and the other dists of the tree: no file of this name for x86_64",
        f"{FOO}: built for i686, the target is x86_64",
        f"{STORE}/5-foo/lib/libfoo.so.1: needs GLIBC_2.50, the target's glibc is 2.40",
    )
    world.store = []
    last = world.answer("a/x.so", "libfoo.so.1").considered[-1]
    assert last == "store: no library of this name in any source"


@pytest.mark.parametrize("name", ["odd:name", "$LIB"])
def test_directory_that_no_search_path_can_name(name: str) -> None:
    world = World({"a/x.so": elf("liby.so", "libz.so.1"), f"a/{name}/liby.so": elf()})
    world.store = [provider(f"/opt/{name}/libz.so.1")]
    for need in ("liby.so", "libz.so.1"):
        missing = world.answer("a/x.so", need)
        assert missing.origin is Origin.MISSING
        assert any("cannot be written in a search path" in line for line in missing.considered)
    # The next one serves; and from inside such a directory $ORIGIN does.
    world.files["a/more/liby.so"] = elf()
    assert world.search_path("a/x.so") == "$ORIGIN/more"
    world.files[f"a/{name}/y.so"] = elf("liby.so")
    assert world.search_path(f"a/{name}/y.so") == "$ORIGIN"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (elf("libz.so.1", machine=AARCH64), SkipReason.OTHER_MACHINE),
        (elf("libz.so.1", machine=I686), SkipReason.OTHER_MACHINE),
        (elf("libz.so.1", soname="ld-linux-x86-64.so.2"), SkipReason.LOADER_OR_LIBC),
        (elf("libz.so.1", soname="libc.so.6"), SkipReason.LOADER_OR_LIBC),
        (elf("libz.so.1", soname="libm.so.6"), SkipReason.LOADER_OR_LIBC),
        (elf("libz.so.1", "libc.musl-x86_64.so.1"), SkipReason.OTHER_LIBC),
        (elf("libz.so.1", "libc.so"), SkipReason.OTHER_LIBC),
        (elf("libz.so.1", interp="/lib/ld-musl-x86_64.so.1"), SkipReason.OTHER_LIBC),
    ],
)
def test_left_alone(facts: ElfFacts, reason: SkipReason) -> None:
    world = World({"a/x.so": facts}, store=[provider(ZLIB)])
    plan = world.plan("a/x.so")
    assert plan.skip is not None
    assert plan.skip.reason is reason
    assert plan.skip.detail
    assert plan.edit is None


def test_musl_answers_to_all_names_of_its_parts() -> None:
    world = World({"a/x.so": elf("libc.musl-x86_64.so.1", "libz.so.1")}, target=MUSL_TARGET)
    world.store = [provider(ZLIB, libc=Libc.MUSL)]
    found = world.answer("a/x.so", "libc.musl-x86_64.so.1")
    assert (found.origin, found.path) == (Origin.LIBC, MUSL_TARGET.loader)
    assert world.search_path("a/x.so") == f"{STORE}/1-zlib/lib"
    skip = replace(world, files={"a/x.so": elf("libc.so.6")}).plan("a/x.so").skip
    assert skip is not None
    assert skip.reason is SkipReason.OTHER_LIBC
    assert TARGET.libc is Libc.GLIBC


def test_a_patched_tree_keeps_its_provider_when_an_equal_or_newer_one_appears() -> None:
    old = provider(f"{STORE}/5-foo-1/lib/libfoo.so.1", defs=["F1"])
    world = World({"a/x.so": elf("libfoo.so.1", wants={"libfoo.so.1": ["F1"]})}, store=[old])
    patched = world.patched("a/x.so")
    patched.store = [provider(f"{STORE}/1-foo-1/lib/libfoo.so.1", defs=["F1"]), old]
    assert patched.plan("a/x.so").edit is None
    # A dist that is installed later shares it.
    patched.files["b/y.so"] = elf("libfoo.so.1")
    assert patched.answer("b/y.so", "libfoo.so.1").entry == old.directory


def test_a_provider_that_became_wrong_or_went_is_replaced() -> None:
    old = provider(f"{STORE}/5-foo-1/lib/libfoo.so.1", defs=["F1"])
    new = provider(f"{STORE}/1-foo-2/lib/libfoo.so.1", defs=["F1", "F2"])
    patched = World({"a/x.so": elf("libfoo.so.1")}, store=[old]).patched("a/x.so")
    patched.store = [new]
    assert patched.answer("a/x.so", "libfoo.so.1").entry == new.directory
    patched.store = [new, old]
    patched.files["b/y.so"] = elf("libfoo.so.1", wants={"libfoo.so.1": ["F2"]})
    assert patched.answer("a/x.so", "libfoo.so.1").entry == new.directory


def test_a_source_that_the_user_names_goes_before_the_provider_in_use() -> None:
    old = provider(f"{STORE}/5-foo-1/lib/libfoo.so.1")
    patched = World({"a/x.so": elf("libfoo.so.1")}, store=[old]).patched("a/x.so")
    named = provider("/opt/lib/libfoo.so.1", source=Source.LIB)
    patched.store = [named, old]
    assert patched.answer("a/x.so", "libfoo.so.1").entry == "/opt/lib"


def lent(dist: str, path: str) -> str:
    return f"{STORE}/7-{dist}/lib/python3.12/site-packages/{path}"


def test_a_dist_in_another_store_path_serves_by_absolute_path() -> None:
    # withPackages links whole directories: $ORIGIN/../torch would end in the store path of the file itself.
    torch = lent("torch", "torch/lib/libc10.so")
    world = World(
        {"vision/_C.so": elf("libc10.so", path="$ORIGIN/../torch/lib")},
        lent={torch: elf(soname="libc10.so")},
        requires={"vision": ("torch",)},
    )
    answer = world.answer("vision/_C.so", "libc10.so")
    assert (answer.origin, answer.entry, answer.path) == (
        Origin.OTHER_DIST, os.path.dirname(torch), torch,
    )  # fmt: skip
    assert world.search_path("vision/_C.so") == f"$ORIGIN/../torch/lib:{os.path.dirname(torch)}"
    assert world.patched("vision/_C.so").plan("vision/_C.so").edit is None


def test_own_dist_and_dists_of_the_tree_come_before_other_store_paths() -> None:
    other = lent("b", "b/liby.so")
    facts = elf(soname="liby.so")
    own = World({"a/x.so": elf("liby.so"), "a.libs/liby.so": facts}, lent={other: facts})
    assert own.answer("a/x.so", "liby.so").entry == "$ORIGIN/../a.libs"
    beside = World({"a/x.so": elf("liby.so"), "b/liby.so": facts}, lent={other: facts})
    assert beside.answer("a/x.so", "liby.so").entry == "$ORIGIN/../b"


def test_other_store_paths_come_where_other_dists_do() -> None:
    # Before the store, but not with a copy of a library that manylinux promises.
    foo, z = lent("b", "b/libfoo.so.1"), lent("c", "c/libz.so.1")
    world = World(
        {"a/x.so": elf("libfoo.so.1", "libz.so.1")},
        store=[provider(FOO), provider(ZLIB)],
        lent={foo: elf(soname="libfoo.so.1"), z: elf(soname="libz.so.1")},
    )
    assert world.answer("a/x.so", "libfoo.so.1").path == foo
    assert world.answer("a/x.so", "libz.so.1").path == ZLIB


def test_required_dists_lend_before_others() -> None:
    near, far = lent("near", "near/liby.so"), lent("any", "any/liby.so")
    facts = elf(soname="liby.so")
    world = World({"a/x.so": elf("liby.so")}, lent={far: facts, near: facts}, requires={"a": ("near",)})
    assert world.answer("a/x.so", "liby.so").path == near


def test_library_of_another_store_path_that_cannot_serve() -> None:
    arm, old = lent("a1", "a1/liby.so"), lent("a2", "a2/liby.so")
    world = World(
        {"a/x.so": elf("liby.so", wants={"liby.so": ["Y_2"]})},
        lent={arm: elf(machine=AARCH64), old: elf(defs=["Y_1"])},
    )
    answer = world.answer("a/x.so", "liby.so")
    assert answer.origin is Origin.MISSING
    assert answer.considered[0] == f"{old}: does not define Y_2"
    assert arm not in str(answer.considered)
