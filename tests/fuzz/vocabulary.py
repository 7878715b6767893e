"""Words of the formats that nixpatch only reads, for the mutation of texts."""

import base64
import hashlib
import random

from fuzz.mutation import archive, words

_DIGITS = b"9" * 4400


def row_values() -> "list[str]":
    """Give hashes of the states of the file that :func:`fuzz.targets_tree.row_updates` is about."""
    return [
        f"{name}={base64.urlsafe_b64encode(hashlib.new(name, state).digest()).decode()}{end}"
        for name in ("sha256", "sha512", "md5", "sha1")
        for state in (b"original", b"patched once", b"patched again")
        for end in (f",{len(state)}", "")
    ]


PYTHON = words(
    *b"ctypes.CDLL( find_library( dlopen( ) 'libz.so.1' name= \" ' [ ] { } ( : , ; * ** @ - ~ f'{".split(),
    *b"manylinux_compatible manylinux1_compatible (a,b,c): = == <= True None 2 1j ... utf-16 \0 \xff".split(),
    *(b"\n", b"    ", b"\t", b"\x0c", b"def ", b"return ", b"if ", b" else ", b" in ", b" not in ", b" is "),
    *(b" and ", b" or ", b"not ", b"for x in ", b"lambda: ", b"# coding: ", _DIGITS),
)
LOADER = words(
    *b"glibc-ld.so.cache1.1 ld.so-1.7.0\0 \0 /lib/ /usr/lib64/ /etc/ld.so.cache / \xff libz.so.1\0".split(),
    *(b"\3\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80", bytes(8), b"a" * 300),
)
PLAN = words(
    *b'{ } [ ] , : " null true 0 1e999 "\\ud800" \0 "command" "plan" "trees" "tree" "root" "prefix"'.split(),
    *b'"target" "files" "needs" "after" "before" "path" "soname" "origin" "findings" "text"'.split(),
    *b'"/" "components" "name" "version" "search_path" "libc_version" "status" {} "machine"'.split(),
    _DIGITS,
)
ROWS = words(
    *b'pkg/x.so ./pkg/x.so "pkg/x.so" , " "" sha256= sha512= md5= SHA1= = 8 12 13 -1 00 x'.split(),
    *(b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"pkg/x.so,,\n", b",,8", _DIGITS),
    *(row.encode() for row in row_values()),
)
TREE_STATE = words(
    *b'{ } [ ] , : " null true 0 -1 1e999 "\\ud800" \\u001b "@key" "@tree" "key" "tree" "outside"'.split(),
    *b'"used" "lines" "/" "" "/etc" "../" "bold" "dim" \\n \\u0000 1.5 false "/nix/store/a"'.split(),
    _DIGITS,
)
_MEMBERS = words(
    *b"x-1.dist-info/ RECORD METADATA WHEEL x-1.data/ purelib/ platlib/ scripts/ data/ headers/ x/".split(),
    *(b"\0\0", b"\0=", b"/", b"..", b".", b"\\", b"\n", b"\xff", b"mode\xa1\xff", b"mode\x41\xed", b":"),
    *(b"Build: 1\n", b"Root-Is-Purelib: true\r\n", b"\xc3\xa9", b'"', b",", b"RECORD.jws", b"a" * 260),
)


def wheel(data: bytes, rng: random.Random) -> bytes:
    """Change a zip file, or members."""
    return archive(data, rng) if data.startswith(b"PK") else _MEMBERS(data, rng)
