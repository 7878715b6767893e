"""The ways in which tools that rewrite ELF files have broken them, and the tests that show that we do not."""

import ast
import functools
import os

import pytest

TESTS = os.path.join(os.path.dirname(__file__), "..")

SHOWN_BY: dict[str, tuple[str, ...]] = {
    "strip after the edit destroys the file, since sections and segments disagree": (
        "elf/test_survival.py::test_program_that_survives_untouched_survives_edited",
        "elf/test_survival.py::test_library_that_survives_untouched_survives_edited",
        "elf/test_tools.py::test_library_loads_after",
    ),
    ".bss gets an address outside every segment, which misleads strip, debuggers and profilers": (
        "elf/test_check.py::test_broken_output_is_found",
        "elf/test_linking.py::test_inspectors_have_no_new_complaints",
    ),
    "of more than three million relocations only the first ones are kept right": (
        "elf/test_layouts.py::test_more_than_three_million_relocations",
    ),
    "of more than a thousand dynamic entries the last ones are lost": (
        "elf/test_layouts.py::test_more_than_a_thousand_dynamic_entries",
        "elf/test_lief_writer.py::test_more_entries_than_lief_reads",
    ),
    "a program without PIE that is edited time and again ends up empty": (
        "elf/test_undo.py::test_ten_edits_equal_the_last_one",
        "elf/test_survival.py::test_patching_and_fixing_up_in_turns_does_not_grow",
    ),
    "a failure is a line in a log, and the caller goes on": (
        "cli/test_elf.py::test_what_cannot_be_done_leaves_the_file_as_it_was",
        "cli/test_patch.py::test_a_file_that_fails_its_checks_stays_as_it_was",
        "elf/test_lief_writer.py::test_whatever_the_child_does_is_a_refused_file",
    ),
    "an ELF type that nobody expects aborts the whole process": (
        "elf/test_read.py::test_header_bytes",
        "property/test_elf_fuzz.py::test_noise_behind_the_magic",
        "elf/test_lief_writer.py::test_an_abort_of_the_real_lief_is_contained",
    ),
    "a hostile file crashes the parser, or makes it take all memory or time": (
        "property/test_elf_fuzz.py::test_changed_bytes_in_headers",
        "property/test_elf_fuzz.py::test_extreme_numbers_in_headers",
        "property/test_elf_fuzz.py::test_forged_record_with_a_valid_checksum",
    ),
    "a static PIE crashes once it has a search path": (
        "elf/test_read.py::test_kinds_of_elf_that_are_left_alone",
    ),
    "a static program is said to be edited, and nothing happened": (
        "elf/test_read.py::test_kinds_of_elf_that_are_left_alone",
    ),
    "a dynamic entry of ppc64le alone that holds an address is not moved along": (
        "elf/test_cross.py::test_library_of_another_machine",
    ),
    "a program without PIE on s390x, big-endian, crashes": (
        "elf/test_cross.py::test_program_of_another_machine",
    ),
    "the debugger entry of MIPS holds a distance that an edit changes": (
        "elf/test_edit.py::test_other_machine_with_a_distance_in_its_dynamic_section_is_refused",
    ),
    "PT_PHDR ends up outside every PT_LOAD": (
        "elf/test_layouts.py::test_program_headers_are_where_the_kernel_says_they_are",
        "elf/test_cross.py::test_program_of_another_machine",
    ),
    "two segments share a page where pages have 16 or 64 KiB": (
        "elf/test_cross.py::test_program_of_another_machine",
        "elf/test_check.py::test_broken_output_is_found",
    ),
    "offset and address of a segment differ modulo its alignment, which an older glibc refuses": (
        "elf/test_check.py::test_broken_output_is_found",
        "property/test_elf_links.py::test_any_linking_under_any_edits",
    ),
    "symbols in thread-local storage are shifted as if they were addresses": (
        "elf/test_edit.py::test_program_finds_its_library",
        "property/test_elf_links.py::test_any_linking_under_any_edits",
    ),
    "symbol versions, hash tables or symbols are rewritten, and some are lost": (
        "elf/test_check.py::test_broken_output_is_found",
        "elf/test_tools.py::test_symbols_as_an_independent_reader_sees_them",
        "elf/test_linking.py::test_symbol_versions_are_bound_as_before",
    ),
    "a needed library is renamed, but not in the version table, and ld.so stops at an assertion": (
        "elf/test_check.py::test_broken_output_is_found",
        "elf/test_edit.py::test_library_finds_its_library",
    ),
    "the old search path shares its bytes with a symbol's name, and both are overwritten": (
        "elf/test_edit.py::test_symbol_that_shares_its_name_with_the_old_path_survives",
    ),
    "appended data moves away from the program that looks for it by offset": (
        "elf/test_payload.py::test_real_pyinstaller_program",
        "elf/test_payload.py::test_real_deno",
        "elf/test_payload.py::test_payload_in_a_section_of_its_own",
        "cli/test_payload.py::test_payloads_are_reported_by_name_and_left_alone",
        "elf/test_edit.py::test_data_behind_a_library_stays_last",
    ),
    "a file without section headers is dropped or breaks the reader": (
        "elf/test_edit.py::test_no_section_headers",
        "elf/test_lief_writer.py::test_no_section_headers",
    ),
    "a separate debug file is edited as if it were a library": (
        "elf/test_read.py::test_separate_debug_file_of_elfutils",
        "elf/test_read.py::test_kinds_of_elf_that_are_left_alone",
    ),
    "object files and archives are edited": (
        "elf/test_read.py::test_kinds_of_elf_that_are_left_alone",
        "elf/test_read.py::test_files_that_are_not_elf",
    ),
    "names decide: text called .so breaks the run, and programs and .so.1 are missed": (
        "elf/test_read.py::test_files_that_are_not_elf",
        "elf/test_read.py::test_truncated_file",
        "unit/installed/test_scan.py::test_the_bytes_decide_and_not_the_name",
    ),
    "files for other machines in the same wheel are edited": (
        "unit/resolve/test_need_sources.py::test_left_alone",
    ),
    "the mode is lost, or setuid stays on contents it was not granted to": (
        "cli/test_patch.py::test_mode_and_times_stay_and_setuid_goes",
    ),
    "another name of the same inode changes along, such as the installer's cache": (
        "cli/test_patch.py::test_another_name_of_the_same_inode_keeps_its_bytes",
        "cli/test_elf.py::test_other_names_of_the_file_keep_its_bytes",
    ),
    "a file outside the tree is edited through a symbolic link": (
        "unit/installed/test_scan.py::test_links_and_special_files_are_left_alone",
        "elf/test_read.py::test_files_that_are_not_elf",
    ),
    "files of several gigabytes are cut, or take several times their size in memory": (
        "elf/test_large.py::test_file_above_4_gib",
        "elf/test_large.py::test_memory_does_not_depend_on_the_size",
    ),
    "the file grows with each edit": (
        "elf/test_undo.py::test_ten_edits_equal_the_last_one",
        "elf/test_undo.py::test_editing_and_stripping_in_turns_does_not_grow",
        "elf/test_survival.py::test_patching_and_fixing_up_in_turns_does_not_grow",
    ),
    "the dynamic loader or libc itself is edited": ("unit/resolve/test_need_sources.py::test_left_alone",),
    "notes and the properties in them get out of step": (
        "elf/test_layouts.py::test_notes_stay_what_and_where_they_are",
    ),
    "packed relative relocations lose the version that announces them": (
        "elf/test_edit.py::test_program_finds_its_library",
        "elf/test_survival.py::test_program_that_survives_untouched_survives_edited",
    ),
    "headers are taken to lie at the beginning of the first segment": (
        "elf/test_layouts.py::test_headers_that_lie_in_no_segment",
    ),
    "the dynamic section ends up in a segment that ld.so cannot write": (
        "elf/test_check.py::test_broken_output_is_found",
        "elf/test_edit.py::test_full_dynamic_section_moves",
        "elf/test_refusals.py::test_no_segment_becomes_writable_and_executable",
    ),
    "relocations kept for later tools, indirect functions and copied data go wrong": (
        "property/test_elf_links.py::test_any_linking_under_any_edits",
    ),
    "DT_RPATH and DT_RUNPATH stand side by side, and one of them does not count": (
        "elf/test_edit.py::test_file_with_both_tags_keeps_one",
        "cli/test_elf_as_patchelf.py::test_edits_as_patchelf_edits",
    ),
    "strings that are not UTF-8 are lost or end the run": (
        "elf/test_edit.py::test_bytes_that_are_not_utf8_survive",
        "property/test_elf_paths.py::test_round_trip",
        "cli/test_elf.py::test_path_bytes_come_out_as_they_went_in",
    ),
    "impossible numbers of headers, or a file cut short, are a crash instead of an answer": (
        "elf/test_read.py::test_header_bytes",
        "property/test_elf_fuzz.py::test_truncated_anywhere",
    ),
    "a libc inside a wheel passes for a provider of libraries": (
        "unit/store/test_index.py::test_a_directory_with_a_libc_is_marked",
        "unit/resolve/test_provider_choice.py::test_a_directory_with_a_libc_only_if_no_other_serves",
    ),
    "link settings that nobody thought of": ("property/test_elf_links.py::test_any_linking_under_any_edits",),
    "a program without PIE made by lld runs after the edit, but not after strip": (
        "elf/test_survival.py::test_program_that_survives_untouched_survives_edited",
    ),
}

NOT_TESTED: dict[str, str] = {
    "ordinary files take seconds": (
        "how long an edit takes is a matter of the machine: benchmarks/edit.py measures it against a bound"
    ),
}


@functools.cache
def functions(path: str) -> frozenset[str]:
    with open(os.path.join(TESTS, path), encoding="utf-8") as file:
        return frozenset(
            node.name for node in ast.walk(ast.parse(file.read())) if isinstance(node, ast.FunctionDef)
        )


@pytest.mark.parametrize("pitfall", SHOWN_BY)
def test_pitfall_has_its_tests(pitfall: str) -> None:
    assert SHOWN_BY[pitfall]
    for test in SHOWN_BY[pitfall]:
        path, _, name = test.partition("::")
        assert name.startswith("test_")
        assert name in functions(path), f"{test} is gone: what shows this now?"


def test_what_is_not_tested_says_why() -> None:
    assert all(NOT_TESTED.values())
    assert not SHOWN_BY.keys() & NOT_TESTED.keys()
    assert len(SHOWN_BY) + len(NOT_TESTED) == 44
