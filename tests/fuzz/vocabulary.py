"""Words of the formats that nixpatch only reads, for the mutation of texts."""

from fuzz.mutation import words

_DIGITS = b"9" * 4400
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
