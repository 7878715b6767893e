"""Which files are loaded by themselves."""

from __future__ import annotations

from nixpatch.operations.starting_files import named_files


def test_a_text_with_the_name_names_the_file() -> None:
    assert named_files(["libfoo.so", "libbar.so"], {"libfoo.so"}) == {"libfoo.so"}


def test_a_text_may_leave_out_suffix_and_version() -> None:
    assert named_files(["libfoo.so.3", "libbar.so"], {"libfoo"}) == {"libfoo.so.3"}


def test_a_pattern_that_fits_one_file_names_it() -> None:
    files = ["libfoo_native.so", "libother.so"]
    assert named_files(files, {"lib{name}_native.so"}) == {"libfoo_native.so"}
    assert named_files(files, {"libfoo*.so"}) == {"libfoo_native.so"}
    assert named_files(files, {"libfoo_%s.so"}) == {"libfoo_native.so"}


def test_a_pattern_that_fits_several_is_a_choice_of_the_code() -> None:
    files = ["libfoo_cuda11.so", "libfoo_cuda12.so", "libfoo_cpu.so"]
    assert named_files(files, {"libfoo_cuda{version}.so", "libfoo_cpu.so"}) == {"libfoo_cpu.so"}
