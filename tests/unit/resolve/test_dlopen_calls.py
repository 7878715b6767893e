"""Which libraries Python code opens by bare name."""

from __future__ import annotations

import pytest

from nixpatch.resolve.dlopen_calls import call_sites

SOURCE = b"""
import ctypes, ctypes.util, sys
ZLIB = "libz.so.1"
if sys.platform == "darwin":
    NAME = "libanswer.dylib"
else:
    NAME = "libanswer.so.1"
ctypes.CDLL(ZLIB); ctypes.CDLL(NAME, mode=1)
ctypes.cdll.LoadLibrary("libone.so.2" if sys else "one.dll")
ctypes.PyDLL(name="libtwo.so")
for each in ("libthree.so.3", "three.dll"):
    ffi.dlopen(each)
ctypes.util.find_library("sndfile") or find_library(computed())
ctypes.CDLL(None); ctypes.CDLL("/usr/lib/libabsolute.so.1"); ctypes.CDLL(f"lib{sys}.so"); "libdoc.so.1"
"""


def test_names_that_stand_in_the_source_are_found_with_their_line() -> None:
    assert [(site.name, site.line, site.finds) for site in call_sites(SOURCE, "a.py")] == [
        ("libanswer.so.1", 8, False),
        ("libone.so.2", 9, False),
        ("libthree.so.3", 12, False),
        ("libtwo.so", 10, False),
        ("libz.so.1", 8, False),
        ("sndfile", 13, True),
    ]


@pytest.mark.parametrize(
    "source",
    [
        b"CDLL(",
        b"CDLL('\\d'); \0",
        b"CDLL(" + b"(" * 5000,
        b"CDLL(" + b"not " * 50_000 + b"1)",
        b"CDLL(x=1, *[])",
        b"\xff CDLL('libz.so.1')",
        b"print('libz.so.1')",
    ],
)
def test_hostile_and_broken_sources_open_nothing(source: bytes) -> None:
    assert call_sites(source, "a.py") == ()
