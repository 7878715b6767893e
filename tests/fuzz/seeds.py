"""Where mutation begins: ``python -m fuzz.seeds DIRECTORY`` writes ``DIRECTORY/TARGET/NAME`` for each.

ELF files are put together by :mod:`fuzz.forge`, compiled by gcc where there is one, and edited by nixpatch;
texts are those of the dists that are installed beside this Python, as pip or uv wrote them.
"""

import contextlib
import glob
import os
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from importlib import resources

from fuzz import targets_search
from fuzz.forge import dlopen_note, samples
from fuzz.targets_text import TARGET, empty_cache, store_row
from fuzz.targets_tree import MEMBERS, ZIP, archive_of
from fuzz.vocabulary import row_values
from nixpatch.elf.inplace_writer import write_edited
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, Libc
from nixpatch.store import lockfile
from nixpatch.store.cached_reads import LibraryHeader, encode
from nixpatch.store.whole_store import packed_listings

_SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "fixtures", "elf")
_ELF_SIZE = 40 << 10
_TEXT_SIZE = 3 << 10
_SMALL = (
    *("-shared", "-fPIC", "-nostdlib", "-nostartfiles", "-Os", "-s", "-Wl,-z,noseparate-code"),
    *("-Wl,-z,max-page-size=4096", "-Wl,--build-id=none", "-fno-asynchronous-unwind-tables"),
)
_FLAGS = {
    "gnu": ("-Wl,-soname,libuse.so", "-DWITH_BSS=900"),
    "rpath": ("-Wl,-rpath,$ORIGIN/../lib:/usr/lib", "-Wl,--disable-new-dtags", "-Wl,--hash-style=both"),
    "runpath": ("-Wl,-rpath,/opt/lib", "-Wl,--enable-new-dtags", "-DWITH_DATA"),
    "noted": ("-Wl,--build-id=sha1", "-Wl,-rpath,/opt/lib"),
    "tls": ("-Wl,--spare-dynamic-tags=0", "-DWITH_TLS"),
}


def of(target: str) -> dict[str, bytes]:
    """Give the seeds of one target by name."""
    if target == "search_stop":
        return {"library": targets_search.library(), "text": b"libprobe.so.1.2", "empty": b""}
    if target.startswith("elf_") and target != "elf_note":
        return _elf(target)
    if target == "cache":
        return {"two": empty_cache(), "empty": b""}
    return {name: data for name, data in _TEXTS[target]().items() if len(data) <= 1 << 16}


def _elf(target: str) -> dict[str, bytes]:
    files = {**samples(), **_installed(), **_compiled()}
    if target in {"elf_read", "elf_symbols"}:
        return files
    if target == "elf_undo":
        return {f"{name}-{n}": out for name, data in files.items() for n, out in enumerate(edited(data))}
    starts = (
        *(b"\2\0\0\0\0", b"\3\2\1\7\0", b"\1\1\0\0\0", b"\0\2\0\1\0", b"\3\0\2\1\0"),
        *(b"\0\0\0\0\1", b"\2\3\0\0\2", b"\0\0\0\0\3", b"\2\0\0\0\6"),
        *(b"\0\0\3\0\0", b"\0\0\6\0\0", b"\3\2\x09\7\0", b"\0\0\x0c\0\0"),
        *(b"\2\4\0\0\0", b"\0\x08\0\0\0", b"\0\x10\0\0\0", b"\3\x15\6\1\0"),
    )
    again = {f"{name}-again": edited(data)[:1] for name, data in files.items()}
    files.update({name: found[0] for name, found in again.items() if found})
    return {f"{name}-{n}": start + data for name, data in files.items() for n, start in enumerate(starts)}


def edited(data: bytes) -> list[bytes]:
    """Give a file as it is after each of two edits; fewer where it cannot be edited."""
    found = []
    cache = (("libanswer.so", "?/y:=/nix/store/x/lib/libanswer.so"),)
    for edit in (
        ElfEdit("/nix/store/x/lib"),
        ElfEdit("/y" * 99, None, "/nix/store/l/" + "l" * 40),
        ElfEdit("/y:/nix/store/x/lib", resolution_cache=cache),
    ):
        source, out = os.memfd_create("source"), os.memfd_create("out")
        try:
            os.pwrite(source, data, 0)
            write_edited(source, out, edit)
            found.append(os.pread(out, os.fstat(out).st_size, 0))
        except FileRefused:
            continue
        finally:
            os.close(source)
            os.close(out)
    return found


def _compiled() -> dict[str, bytes]:
    """Compile a few libraries of some kilobytes; none where there is no gcc."""
    found: dict[str, bytes] = {}
    if shutil.which("gcc") is None:
        return found
    with tempfile.TemporaryDirectory() as directory:
        answer = os.path.join(directory, "libanswer.so")
        source = os.path.join(_SOURCES, "answer.c")
        script = f"-Wl,--version-script={os.path.join(_SOURCES, 'versions.map')},-soname,libanswer.so"
        subprocess.run(["gcc", *_SMALL, script, "-o", answer, source], check=True, capture_output=True)
        found["answer"] = _read(answer)
        for name, flags in _FLAGS.items():
            out = os.path.join(directory, name)
            made = subprocess.run(
                ["gcc", *_SMALL, *flags, "-o", out, os.path.join(_SOURCES, "use.c"), answer],
                check=False,
                capture_output=True,
            )
            if made.returncode == 0:
                found[name] = _read(out)
    return {name: data for name, data in found.items() if len(data) < _ELF_SIZE}


def _installed() -> dict[str, bytes]:
    """Give the smallest extension modules of the wheels beside this Python."""
    site = sysconfig.get_path("platlib")
    found = sorted(glob.glob(os.path.join(site, "**", "*.so*"), recursive=True), key=os.path.getsize)
    return {
        os.path.basename(path)[-40:]: _read(path) for path in found[:2] if os.path.getsize(path) < _ELF_SIZE
    }


def _dists(name: str) -> dict[str, bytes]:
    site = sysconfig.get_path("purelib")
    found = sorted(glob.glob(os.path.join(site, "*.dist-info", name)))
    return {os.path.basename(os.path.dirname(path)): _read(path)[:_TEXT_SIZE] for path in found}


def _records() -> dict[str, bytes]:
    made = {
        "quoted": b'"a,b.so",sha256=x,1\r\n"a""b",,\r\nRECORD,,\r\n',
        "odd": b'a"b,sha384=abc,12\n"x"y,,\n../../../bin/ruff,sha256=,\n/abs,md5=x,3\n"open,sha256=a,1\n',
    }
    return {**_dists("RECORD"), **made}


def _requires() -> dict[str, bytes]:
    lines = {
        name: b"\n".join(
            line.partition(b":")[2].strip() for line in data.splitlines() if line.startswith(b"Requires-Dist")
        )
        for name, data in _dists("METADATA").items()
    }
    lines["cuda"] = b'torch; platform_system == "Linux" and (extra == "x" or python_version < "3")\nb[x]>=1'
    return {name: data for name, data in lines.items() if data}


def _provenance() -> dict[str, bytes]:
    file = b'{"interp":null,"needs":{"libz.so.1":"/nix/store/a/lib/libz.so.1"},"original":"sha256=00",'
    file += b'"patched":"sha256=11","search_path":"$ORIGIN","tag":"RUNPATH"}'
    whole = b'{"files":{"p/x.so":' + file + b'},"libraries":{},"tool":"nixpatch 1","version":1}'
    text = b'"texts":{"../../../bin/x":{"kind":"script","next_sha256":"sha256=22","original":"sha256=00",'
    text += b'"program":"/bin/bash","sha256":"sha256=11","uses":["/nix/store/a/bin/bash"]},'
    text += b'"nixpatch-p.pth":{"kind":"startup","sha256":"sha256=33"}},'
    return {
        "one": whole,
        "lief": whole.replace(b'"tag"', b'"writer":"lief","tag"'),
        "texts": whole.replace(b'"tool"', text + b'"tool"'),
        "ignored": whole.replace(b'"tool"', b'"ignored":{"p/y.so":["libcuda.so.1"]},"tool"'),
        "empty": b"{}",
    }


def _lock() -> dict[str, bytes]:
    library = lockfile.LockedLibrary("/nix/store/a-zlib", "lib/libz.so.1", "00", "the store", "zlib", "zlib")
    both = {"libz.so.1": library}
    return {
        "one": lockfile.dump(lockfile.Lockfile("x86_64", "/l/ld.so", Libc.GLIBC, (2, 36), both)),
        "musl": lockfile.dump(lockfile.Lockfile("x86_64", "/l/ld.so", Libc.MUSL, (), {})),
    }


def _policy() -> dict[str, bytes]:
    text = resources.files("nixpatch").joinpath("data/policy.toml").read_bytes()
    parts = text.split(b"\n\n")
    rules = b'[[ignore]]\nfile = "*/p/*.so"\nsonames = ["lib*.so.*"]\nreason = "r"\n'
    rules += b'[drivers]\nsonames = ["a*b"]\n'
    return {"rules": rules, **{f"part{n}": part for n, part in enumerate(parts[:12])}}


def _header() -> dict[str, bytes]:
    header = LibraryHeader(
        TARGET.machine, False, "libz.so.1", ("libc.so.6",), "$ORIGIN", None, ("Z_1",), ("GLIBC_2.4",)
    )
    return {"header": encode(header), "reason": encode("not an ELF file")}


def _ld_cache() -> dict[str, bytes]:
    names = b"libz.so.1\0/lib/libz.so.1\0"
    table = struct.pack("=iIIIQ", 3, 72, 82, 0, 0)
    new = b"glibc-ld.so.cache1.1" + struct.pack("=II", 1, len(names)) + bytes(20) + table + names
    return {"new": new, "both": b"ld.so-1.7.0\0" + struct.pack("=I", 1) + bytes(12) + bytes(4) + new}


def _plan() -> dict[str, bytes]:
    file = b'{"path":"/t/a.so","status":"patched","before":null,"after":{"search_path":"/nix/store/x/lib",'
    file += b'"tag":"RUNPATH","interpreter":null},'
    file += b'"needs":[{"soname":"libz.so.1","origin":"store","path":"/n/z"}]}'
    tree = b'{"tree":{"root":"/t","prefix":"/t"},"target":{"machine":"x86_64","loader":"/l","libc":"glibc",'
    tree += b'"libc_version":[2,36]},"files":[' + file + b'],"findings":[{"path":"/t/a.so","text":"x"}]}'
    whole = b'{"command":"plan","trees":[' + tree + b"]}"
    changed = whole.replace(b"libz", b"libx").replace(b"36", b"40").replace(b"/x/", b"/y/")
    return {"one": whole, "two": whole + b"\0" + changed, "locks": b"\0".join(_lock().values())}


def _rows() -> dict[str, bytes]:
    values = row_values()
    rows = {f"row{n}": f"pkg/x.so,{value}\n".encode() for n, value in enumerate(values) if n % 5 == 0}
    rows["two"] = f"a,,\r\n./pkg/x.so,{values[0]}\r\npkg/x.so,{values[2]}\nx/RECORD,,".encode()
    rows["odd"] = b'"pkg/x.so",sha256=wrong,008\n"pkg/x.so",,8\npkg/x.so,shake_128=00,\n'
    return {name: b"\0\xff" + data for name, data in rows.items()}


def _wheels() -> dict[str, bytes]:
    parts = {
        "x/__init__.py": b"",
        "x/y.py": b"import x\n",
        "x-1.data/scripts/run": b"#!python\n",
        "x-1.data/headers/x.h": b"#\n",
        "x-1.dist-info/METADATA": b"Name: x\nVersion: 1\n",
        "x-1.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    members = b"\0\0".join(name.encode() + b"\0=" + data for name, data in parts.items())
    packed = archive_of(members)
    return {"members": MEMBERS + members, "stored": ZIP + packed, "small": MEMBERS + b"x.py\0=1"}


_PYTHON = {
    "opens": b'N = "libz.so.1"\nfor x in ("liba.so", "libb.so.2"):\n    ctypes.CDLL(x)\ndlopen(N)\n',
    "finds": b'y = find_library("z" if a else "x") or CDLL(name="libq.so")\n',
    "function": b"def manylinux_compatible(a, b, c):\n    if (a, b) <= (2, 17) and not c in ('x',):\n"
    b"        return None\n    return False if a == 2 else True\n",
    "attributes": b"manylinux1_compatible = manylinux2014_compatible = False\nX: int = (2, 5)\n",
}
_TEXTS: dict[str, Callable[[], dict[str, bytes]]] = {
    "ld_cache": _ld_cache,
    "ld_so": lambda: {
        "glibc": b"\0/etc/ld.so.cache\0/lib/x86_64-linux-gnu/\0/usr/lib/\0/lib/\0x",
        "nix": b"\0/nix/store/x-glibc/lib/\0\0/nix/store/x-glibc/etc/ld.so.cache\0",
    },
    "manylinux": lambda: _PYTHON,
    "opened_names": lambda: {
        **_PYTHON,
        "cffi": b"ffi = FFI()\ndef load(names, *m):\n    for n in names:\n        try: return ffi.dlopen(n)\n"
        b"        except OSError: pass\nload(('z', f'lib{x}.so.%d' % 3, 'lib' + y), **{'a': b'c'})\n",
        "class": b"class A:\n    names = ['libz.so']\n    def f(self, n=None):\n"
        b"        return CDLL(n or self.names[0])\nA().f(find_library(sys.argv[1]))\n",
    },
    "call_sites": lambda: _PYTHON,
    "diff": _plan,
    "sbom": lambda: {
        "one": b'{"bomFormat":"CycloneDX","components":[{"name":"libz","version":"1.2.11-5"},{"name":"x"}]}'
    },
    "elf_note": lambda: {
        "one": b'\0[{"soname":["libz.so.1","libz.so"],"priority":"required","description":"x"}]',
        "two": b"\1" + dlopen_note(b'[{"soname":["a"]}]') + dlopen_note(b'[{"soname":["b"],"feature":"f"}]'),
    },
    "record": _records,
    "provenance": _provenance,
    "lock": _lock,
    "policy": _policy,
    "metadata": lambda: _dists("METADATA"),
    "requirements": _requires,
    "pyvenv": lambda: {
        "venv": b"home = /usr/bin\nversion = 3.11.2\nexecutable = /usr/bin/p\n",
        "uv": b"home = /nix/store/x/bin\nimplementation = CPython\nuv = 0.5\nversion_info = 3.12.1\n",
    },
    "shebang": lambda: {
        "bash": b"#!/bin/bash -e\necho\n",
        "python": b"#! /usr/bin/python3\t-I \r\n\xff\0",
        "long": b"#!/" + b"x" * 251 + b"\n",
        "env": b"#!/usr/bin/env bash",
    },
    "script": lambda: {
        "pip": b"#!/t/bin/python3.11\nimport sys\n",
        "nix": b'#! /nix/store/b/bin/bash -e\nexec -a "$0" "/nix/store/p/bin/.python3.11-wrapped" "$@"\n',
        "long": b"#!/bin/sh\n'''exec' \"/a b/bin/python3\" \"$0\" \"$@\"\n' '''\n",
    },
    "soname": lambda: {
        name: name.encode()
        for name in (
            "libz.so.1",
            "libicuuc.so.72",
            "libcuda.so.1",
            "GLIBC_2.36",
            "libstdc++.so.6.0.30",
            "gcc-13.2.0-lib",
        )
    },
    "search_path": lambda: {
        "usual": b"$ORIGIN/../numpy.libs:${ORIGIN}:/usr/lib:/nix/store/a/lib:/run/d\0lib\0../..",
        "odd": b":lib:$LIB/x:$ORIGIN/../../../../../../etc:/t/venv/lib/../lib:$ORIGINx",
    },
    "lief_answer": lambda: {
        "good": b'0\n{"address": 4194304}',
        "refused": b'0\n{"refused": "no room"}',
        "died": b"-6 log\n",
        "logged": b'0error\n{"address": 1}',
    },
    "cache_store": lambda: {
        "store": store_row(),
        "listings": packed_listings({"/nix/store/a/lib": b"libz.so.1\0"}, {"/nix/store/a/lib": b"s" * 40}),
    },
    "cache_value": _header,
    "row_updates": _rows,
    "wheel_file": _wheels,
    "tree_state": lambda: {
        "known": b'{"key":"@key","lines":[["Patched 0 of 3 ELF files.","bold green"],["x",""]],'
        b'"outside":{"/dev/null/x":""},"tree":"@tree","used":["/nix/store/a"]}',
    },
}


def write(directory: str, target: str) -> int:
    """Write the seeds of one target; return how many there are."""
    os.makedirs(directory, exist_ok=True)
    seeds = of(target)
    for name, data in seeds.items():
        with (
            contextlib.suppress(OSError),
            open(os.path.join(directory, name.replace("/", "_")), "wb") as file,
        ):
            file.write(data)
    return len(seeds)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


if __name__ == "__main__":
    from fuzz.targets import TARGETS

    for each in TARGETS:
        print(f"{write(os.path.join(sys.argv[1], each), each):5} {each}")
