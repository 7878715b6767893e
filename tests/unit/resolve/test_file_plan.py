"""What shall happen to a whole file.

Libraries that files open themselves: by their note, by the tables, by --runtime-dep.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from nixpatch.model import DlopenNeed, DlopenPriority, ElfEdit, ElfFacts, Linkage, ManualEdit, Origin, Tag
from nixpatch.policy import Policy, Rule
from nixpatch.resolve.context import SearchPathOptions
from nixpatch.resolve.file_plan import libc_findings, plan_file
from support.resolving import DRIVERS, GLIBC, LOADER, MUSL_TARGET, SITE, STORE, X86_64, World, elf, provider

ZLIB = f"{STORE}/1-zlib/lib/libz.so.1"
FOO = f"{STORE}/4-foo/lib/libfoo.so.1"
LIB = f"{STORE}/1-zlib/lib"
FHS_LOADER = "/lib64/ld-linux-x86-64.so.2"


@pytest.mark.parametrize(
    "path",
    [
        None,
        "",
        "$ORIGIN",
        "$ORIGIN:$ORIGIN/.",
        f"{SITE}/a/sub",
        f"{LIB}:$ORIGIN",
        DRIVERS,
        "/usr/lib",
        "$ORIGIN/../../../../../..",
    ],
)
def test_file_that_needs_libc_alone_is_not_touched(path: str | None) -> None:
    # libc.so.6 is in the process already: no entry, however odd, can bring another one in.
    plan = World({"a/x.so": elf("libc.so.6", "ld-linux-x86-64.so.2", path=path)}).plan("a/x.so")
    assert plan.edit is None
    assert plan.dropped == ()
    assert plan.after == elf(path=path).original


@pytest.mark.parametrize("hole", ["", ".", "lib", "$ORIGINX", "$LIB", "${PLATFORM}/x"])
@pytest.mark.parametrize("needed", [(), ("libc.so.6",), ("libown.so",)])
def test_hole_is_closed_even_where_all_needs_are_met(hole: str, needed: tuple[str, ...]) -> None:
    world = World({"a/x.so": elf(*needed, path=f"$ORIGIN:{hole}:{hole}"), "a/libown.so": elf()})
    plan = world.plan("a/x.so")
    assert plan.edit == ElfEdit("$ORIGIN", Tag.RUNPATH)
    assert {drop.entry for drop in plan.dropped} == {hole}


def test_what_nixpatch_elf_changed_stays() -> None:
    manual = ManualEdit(soname="libnew.so", needed=("libown.so",))
    files = {"a/x.so": replace(elf(path="$ORIGIN:."), manual=manual), "a/libown.so": elf()}
    assert World(files).plan("a/x.so").edit == ElfEdit("$ORIGIN", Tag.RUNPATH, manual=manual)


def test_search_path_of_holes_alone_goes() -> None:
    plan = World({"a/x.so": elf("libc.so.6", path=":", tag=Tag.RPATH)}).plan("a/x.so")
    assert plan.edit == ElfEdit("")
    assert plan.after == Linkage(None, None, None)


@pytest.mark.parametrize("need", ["libm.so.6", "libown.so", "libnowhere.so"])
def test_directories_of_other_machines_go_where_ld_so_would_look_into_them(need: str) -> None:
    # /usr/lib may hold the libm of another glibc, which does not go with the target's libc (B7).
    world = World({"a/x.so": elf("libc.so.6", need, path="/usr/lib:$ORIGIN"), "a/libown.so": elf()})
    plan = world.plan("a/x.so")
    assert plan.edit == ElfEdit("$ORIGIN", Tag.RUNPATH)
    assert [drop.entry for drop in plan.dropped] == ["/usr/lib"]


def test_decision_does_not_depend_on_what_lies_in_the_fhs() -> None:
    world = World({"a/x.so": elf("libz.so.1", path="/usr/lib")}, store=[provider(ZLIB)])
    before = world.plan("a/x.so")
    world.elsewhere["/usr/lib/libz.so.1"] = X86_64
    assert world.plan("a/x.so") == before


def test_unused_entries_of_the_tree_stay() -> None:
    # dlopen() may want them (B4).
    world = World({"a/x.so": elf("libz.so.1", path="$ORIGIN/plugins:$ORIGIN/../b")}, store=[provider(ZLIB)])
    assert world.search_path("a/x.so") == f"$ORIGIN/plugins:$ORIGIN/../b:{LIB}"


@pytest.mark.parametrize(
    ("before", "wish", "after"),
    [
        (None, None, Tag.RUNPATH),
        (Tag.RUNPATH, None, Tag.RUNPATH),
        (Tag.RPATH, None, Tag.RPATH),
        (None, Tag.RPATH, Tag.RPATH),
        (Tag.RUNPATH, Tag.RPATH, Tag.RPATH),
        (Tag.RPATH, Tag.RUNPATH, Tag.RUNPATH),
    ],
)
def test_tag(before: Tag | None, wish: Tag | None, after: Tag) -> None:
    path = "$ORIGIN" if before else None
    world = World({"a/x.so": elf("libz.so.1", path=path, tag=before)}, store=[provider(ZLIB)])
    world.options = SearchPathOptions(tag=wish)
    plan = world.plan("a/x.so")
    assert plan.after is not None
    assert plan.after.tag is after
    assert plan.edit == ElfEdit(f"{path}:{LIB}" if path else LIB, after)


def test_wish_for_a_tag_changes_files_whose_needs_are_met() -> None:
    world = World({"a/x.so": elf("libc.so.6", path="$ORIGIN", tag=Tag.RPATH), "a/y.so": elf("libc.so.6")})
    world.options = SearchPathOptions(tag=Tag.RUNPATH)
    assert world.plan("a/x.so").edit == ElfEdit("$ORIGIN", Tag.RUNPATH)
    assert world.plan("a/y.so").edit is None  # it has no entry that a tag could name


def test_append_goes_last_and_into_every_file() -> None:
    world = World({"a/x.so": elf("libcuda.so.1", path="$ORIGIN"), "a/y.so": elf("libc.so.6")})
    world.options = SearchPathOptions(append=("/opt/extra",))
    assert world.search_path("a/x.so") == f"$ORIGIN:{DRIVERS}:/opt/extra"
    assert world.search_path("a/y.so") == "/opt/extra"


@pytest.mark.parametrize(
    ("interp", "after"),
    [
        (FHS_LOADER, LOADER),
        ("/lib/ld-linux-x86-64.so.2", LOADER),
        (f"{STORE}/gone-glibc/lib/ld-linux-x86-64.so.2", LOADER),
        (f"{STORE}/other-glibc/lib/ld-linux-x86-64.so.2", f"{STORE}/other-glibc/lib/ld-linux-x86-64.so.2"),
        (LOADER, LOADER),
    ],
)
def test_interpreter(interp: str, after: str) -> None:
    world = World({"a/tool": elf("libc.so.6", interp=interp)})
    world.elsewhere[f"{STORE}/other-glibc/lib/ld-linux-x86-64.so.2"] = X86_64
    plan = world.plan("a/tool")
    assert plan.after is not None
    assert plan.after.interp == after
    assert plan.edit == (None if interp == after else ElfEdit(None, interp=after))


def test_musl_program_stays_with_musl() -> None:
    world = World({"a/tool": elf("libc.so", interp="/lib/ld-musl-x86_64.so.1")}, target=MUSL_TARGET)
    assert world.plan("a/tool").edit == ElfEdit(None, interp=MUSL_TARGET.loader)


def test_second_run_changes_nothing() -> None:
    world = World(
        {
            "a/tool": elf(
                "libz.so.1", "libcuda.so.1", "liby.so", "libodd.so", path="::/usr/lib", interp=FHS_LOADER
            ),
            "b/liby.so": elf(),
        },
        store=[provider(ZLIB)],
    )
    first = world.plan("a/tool")
    assert first.edit == ElfEdit(f"$ORIGIN/../b:{LIB}:{DRIVERS}", Tag.RUNPATH, LOADER)
    second = world.patched("a/tool").plan("a/tool")
    assert second.edit is None
    assert second.after == first.after
    assert second.answers == first.answers


def test_store_that_changed_is_planned_from_the_original() -> None:
    world = World({"a/x.so": elf("libz.so.1", path="$ORIGIN")}, store=[provider(ZLIB)]).patched("a/x.so")
    world.store = [provider(f"{STORE}/2-zlib/lib/libz.so.1")]
    assert world.plan("a/x.so").edit == ElfEdit(f"$ORIGIN:{STORE}/2-zlib/lib", Tag.RUNPATH)


def test_back_to_the_original_when_nothing_is_needed_any_more() -> None:
    world = World({"a/x.so": elf("liby.so", path="$ORIGIN"), "b/liby.so": elf()}).patched("a/x.so")
    assert world.files["a/x.so"].current.search_path == "$ORIGIN:$ORIGIN/../b"
    world.files["a/liby.so"] = elf()
    plan = world.plan("a/x.so")
    assert plan.edit == ElfEdit(None)
    assert plan.after == world.files["a/x.so"].original
    assert plan.dropped == ()


def test_file_where_only_hopeless_needs_remain_is_not_touched() -> None:
    world = World({"a/x.so": elf("libodd.so", "libc.so.6", path="$ORIGIN")})
    plan = world.plan("a/x.so")
    assert plan.edit is None
    assert [answer.need for answer in plan.missing] == ["libodd.so"]


def test_need_that_is_named_twice_is_answered_once() -> None:
    world = World({"a/x.so": elf("libz.so.1", "libz.so.1")}, store=[provider(ZLIB)])
    assert len(world.plan("a/x.so").answers) == 1


def test_answer_tells_what_an_earlier_entry_makes_ld_so_open() -> None:
    # $ORIGIN/../b is there for liby.so; it holds a libz.so.1 too, and stands before the store.
    world = World({"a/x.so": elf("liby.so", "libz.so.1"), "b/liby.so": elf(), "b/libz.so.1": elf()})
    world.store = [provider(ZLIB)]
    found = world.answer("a/x.so", "libz.so.1")
    assert found.path == f"{SITE}/b/libz.so.1"
    assert found.entry == "$ORIGIN/../b"
    assert ZLIB in found.detail


def test_answer_names_the_entry_as_it_stands_in_the_file() -> None:
    # The absolute entry would be rewritten, but nothing else asks for a change.
    world = World({"a/x.so": elf("liby.so", path=f"{SITE}/b"), "b/liby.so": elf()})
    plan = world.plan("a/x.so")
    assert plan.edit is None
    (found,) = plan.answers
    assert (found.origin, found.entry, found.path) == (Origin.OWN_PATH, f"{SITE}/b", f"{SITE}/b/liby.so")


def test_entry_through_a_missing_directory_serves_nothing() -> None:
    # The kernel does not find $ORIGIN/gone/.., though it reads like $ORIGIN.
    world = World({"a/x.so": elf("liby.so", path="$ORIGIN/gone/../../b"), "b/liby.so": elf()})
    question = world.question()
    existing = question.machine_of
    strict = replace(question, machine_of=lambda path: None if "/gone/" in path else existing(path))
    (file,) = (file for file in strict.tree.files if file.path == f"{SITE}/a/x.so")
    plan = plan_file(strict, file)
    assert plan.edit == ElfEdit("$ORIGIN/gone/../../b:$ORIGIN/../b", Tag.RUNPATH)


def test_copy_of_a_part_of_libc_in_a_kept_directory_is_told() -> None:
    world = World(
        {"a/x.so": elf("libm.so.6", "libc.so.6", path="$ORIGIN"), "a/libm.so.6": elf(), "a/libc.so.6": elf()}
    )
    plan = world.plan("a/x.so")
    assert plan.edit is None
    assert [answer.path for answer in plan.answers] == [f"{SITE}/a/libm.so.6", f"{GLIBC}/libc.so.6"]
    (finding,) = libc_findings(world.question(), plan)
    assert finding.severity == "note"
    assert f"libm.so.6 comes from {SITE}/a/libm.so.6" in finding.text


def test_program_takes_a_copy_of_libc_itself() -> None:
    files = {"a/tool": elf("libc.so.6", path="$ORIGIN", interp=LOADER), "a/libc.so.6": elf()}
    world = World(files)
    (finding,) = libc_findings(world.question(), world.plan("a/tool"))
    assert "libc.so.6" in finding.text


def test_glibc_that_is_too_old_is_a_finding_of_its_own() -> None:
    wants = {"libc.so.6": ["GLIBC_2.34", "GLIBC_2.41"], "libm.so.6": ["GLIBC_2.43"], "libz.so.1": ["GLIBC_9"]}
    world = World({"a/x.so": elf("libc.so.6", "libm.so.6", wants=wants)})
    (finding,) = libc_findings(world.question(), world.plan("a/x.so"))
    assert (finding.severity, finding.path) == ("error", f"{SITE}/a/x.so")
    assert "needs GLIBC_2.43, the target's glibc is 2.40" in finding.text


@pytest.mark.parametrize("wants", [["GLIBC_2.34"], ["GLIBC_2.31"], ["GLIBC_PRIVATE"], []])
def test_glibc_that_is_new_enough(wants: list[str]) -> None:
    world = World({"a/x.so": elf("libc.so.6", wants={"libpthread.so.0": wants})})
    assert libc_findings(world.question(), world.plan("a/x.so")) == ()


def test_no_findings_for_what_is_left_alone() -> None:
    world = World({"a/x.so": elf("libc.so", wants={"libc.so.6": ["GLIBC_9"]})})
    assert libc_findings(world.question(), world.plan("a/x.so")) == ()


ZSTD = f"{STORE}/eeee-zstd-1.5/lib/libzstd.so.1"
NVRTC = f"{STORE}/ffff-nvrtc/lib/libnvrtc.so.12"


def opening(*needs: DlopenNeed, needed: tuple[str, ...] = ()) -> ElfFacts:
    return replace(elf(*needed), dlopen_needs=needs)


def recommended(*sonames: str) -> DlopenNeed:
    return DlopenNeed(sonames, DlopenPriority.RECOMMENDED)


def test_what_a_note_names_gets_into_the_search_path() -> None:
    world = World({"a/x.so": opening(recommended("libzstd.so.1"))}, store=[provider(ZSTD)])

    assert world.search_path("a/x.so") == f"{STORE}/eeee-zstd-1.5/lib"
    assert "opened at run time, recommended" in world.answer("a/x.so", "libzstd.so.1").detail


def test_the_first_alternative_that_can_be_met_serves() -> None:
    world = World({"a/x.so": opening(recommended("libzstd.so.9", "libzstd.so.1"))}, store=[provider(ZSTD)])

    assert world.answer("a/x.so", "libzstd.so.1").origin is Origin.STORE


@pytest.mark.parametrize(
    ("priority", "origin"),
    [
        (DlopenPriority.REQUIRED, Origin.MISSING),
        (DlopenPriority.RECOMMENDED, Origin.IGNORED),
        (DlopenPriority.SUGGESTED, Origin.IGNORED),
    ],
)
def test_only_what_is_required_can_be_missing(priority: DlopenPriority, origin: Origin) -> None:
    world = World({"a/x.so": opening(DlopenNeed(("libgone.so",), priority))})

    assert world.answer("a/x.so", "libgone.so").origin is origin
    assert world.plan("a/x.so").edit is None


def test_a_need_that_is_also_linked_is_told_once() -> None:
    facts = opening(recommended("libzstd.so.1"), needed=("libzstd.so.1",))
    world = World({"a/x.so": facts}, store=[provider(ZSTD)])

    assert [answer.need for answer in world.plan("a/x.so").answers] == ["libzstd.so.1"]


def test_a_row_of_the_tables_concerns_the_files_that_fit() -> None:
    world = World({"torch/lib/x.so": elf("libc.so.6"), "a/y.so": elf("libc.so.6")}, store=[provider(NVRTC)])
    rule = Rule("*/torch/lib/*", ("libnvrtc.so.12",), "opened by its bare name")
    world.policy = world.policy.extended(Policy(runtime=(rule,)))

    assert world.search_path("torch/lib/x.so") == f"{STORE}/ffff-nvrtc/lib"
    assert world.search_path("a/y.so") is None


def test_a_library_of_another_dist_is_opened_through_origin() -> None:
    files = {"torch/lib/x.so": elf(), "nvidia/lib/libnvrtc.so.12": elf(soname="libnvrtc.so.12")}
    world = World(files)
    world.policy = world.policy.extended(
        Policy(runtime=(Rule("*/x.so", ("libnvrtc.so.12",), "--runtime-dep"),))
    )

    assert world.search_path("torch/lib/x.so") == "$ORIGIN/../../nvidia/lib"
