"""All targets by name, each with the mutator that suits its inputs."""

from collections.abc import Callable
from dataclasses import dataclass

from fuzz import mutation, targets_elf, targets_read, targets_search, targets_text, targets_tree, vocabulary
from fuzz.mutation import Mutator


@dataclass(frozen=True)
class Target:
    """One thing to fuzz."""

    run: Callable[[bytes], None]
    """returns, or raises what is a bug"""
    mutate: Mutator
    longest: int = 4 << 10
    """bytes; what is longer costs time and says nothing new"""


_JSON = mutation.words(
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"true", b"0", b"1", b"-1", b"1e999", b"\\u0000"),
    *(b'"\\ud800"', b'"version"', b'"files"', b'"needs"', b'"tag"', b'"RUNPATH"', b'"original"', b'"libc"'),
    *(b'"soname"', b'"file"', b'"store_path"', b'"priority"', b'"../"', b"/", b"..", b"sha256=", b"9" * 4400),
    *(b'"address"', b'"refused"', b"NaN", b"\xff", b"\xef\xbb\xbf", b"1.5", b'"libraries"'),
)
_RECORD = mutation.words(
    *(
        b",",
        b'"',
        b'""',
        b"\n",
        b"\r\n",
        b"\r",
        b"a.so",
        b"sha256=",
        b"sha512=abc",
        b"md5=",
        b"12",
        b"../",
        b"\\",
    ),
    *(b"\0", b"\xff", b"=", b" ", b"/", b'"\n"', b'",', b',"', b"\x85", b"\xe2\x80\xa8"),
)
_METADATA = mutation.words(
    *(
        b"Name: a",
        b"Version: 1",
        b"Requires-Dist: ",
        b"\n",
        b"\r\n",
        b"\n ",
        b"\n\t",
        b":",
        b" ",
        b"\n\n",
        b";",
    ),
    *(
        b"torch",
        b'; extra == "x"',
        b"python_version",
        b">=",
        b"<",
        b"(",
        b")",
        b" and ",
        b" or ",
        b" in ",
        b"[x]",
    ),
    *(
        b'"3.11"',
        b"~=",
        b"===",
        b"@ http://x",
        b"not in",
        b"'",
        b",",
        b"1.2.*",
        b"9" * 4400,
        b"os_name",
        b"\xff",
    ),
    *(b"platform_machine", b"\x0b", b"\x85", b"extra", b"implementation_version", b"*", b"1!2.0+l"),
)
_TOML = mutation.words(
    *(
        b"[",
        b"]",
        b"[[",
        b"]]",
        b"{",
        b"}",
        b"=",
        b'"',
        b"'",
        b'"""',
        b"\n",
        b",",
        b".",
        b"#",
        b"\\u",
        b"\\UFFFFFFFF",
    ),
    *(
        b"ignore",
        b"runtime",
        b"drivers",
        b"sonames",
        b"file",
        b"reason",
        b"libc",
        b"system",
        b"directory",
        b"glibc",
    ),
    *(
        b"*",
        b"?",
        b"[!",
        b"1979-05-27T07:32:00Z",
        b"99:99:99",
        b"1e9999",
        b"inf",
        b"nan",
        b"0x",
        b"9" * 4400,
        b"\xff",
    ),
)
_TEXT = mutation.words(
    *(
        b"home = ",
        b"version = 3.11.2",
        b"version_info = 3.12",
        b"=",
        b"\n",
        b"\r",
        b"9" * 4400,
        b".",
        b"/usr/bin",
    ),
    *(
        b"#!",
        b"/usr/bin/env ",
        b"/nix/store/x/bin/python3.11",
        b"exec ",
        b'"',
        b"'",
        b"\\",
        b" ",
        b"$",
        b"\xff",
        b"\0",
    ),
)
_SONAME = mutation.words(
    *(
        b"lib",
        b".so",
        b".so.",
        b"z",
        b"1",
        b".",
        b"-",
        b"_",
        b"*",
        b"[",
        b"]",
        b"?",
        b"GLIBC_",
        b"2.36",
        b"9" * 4400,
    ),
    *(b" ", b"\t", b"\n", b"\xff", b"\xd9\xa3", b"\xc2\xb2", b"cuda", b"libcuda.so.1", b"pre", b"\0", b"/"),
)
_PATHS = mutation.words(
    *(
        b"$ORIGIN",
        b"${ORIGIN}",
        b"$LIB",
        b"$PLATFORM",
        b":",
        b"/",
        b"..",
        b".",
        b"//",
        b"/nix/store/a/lib",
        b"\0",
    ),
    *(
        b"/t/venv",
        b"/t/venv/lib",
        b"/run/d",
        b"$",
        b"{",
        b"}",
        b"lib",
        b"python3.11",
        b"site-packages",
        b"\xff",
        b"_",
    ),
)

_ELF = 16 << 10

TARGETS = {
    "elf_read": Target(targets_elf.reader, mutation.elf(), _ELF),
    "elf_edit": Target(targets_elf.edit, mutation.elf(targets_elf.PREFIX), _ELF),
    "elf_undo": Target(targets_elf.undo, mutation.elf(), _ELF),
    "elf_symbols": Target(targets_elf.symbols, mutation.elf(), _ELF),
    "elf_note": Target(targets_elf.note, _JSON),
    "record": Target(targets_text.record_rows, _RECORD, 256),
    "provenance": Target(targets_text.provenance_file, _JSON),
    "lock": Target(targets_text.lock_file, _JSON),
    "policy": Target(targets_text.policy_file, _TOML, 400),
    "metadata": Target(targets_text.metadata, _METADATA),
    "requirements": Target(targets_text.requires_dist, _METADATA, 128),
    "pyvenv": Target(targets_text.pyvenv_cfg, _TEXT),
    "shebang": Target(targets_text.first_line, _TEXT, 300),
    "opened_names": Target(targets_read.opened, vocabulary.PYTHON, 400),
    "script": Target(targets_text.script, _TEXT),
    "soname": Target(targets_text.soname, _SONAME, 300),
    "search_path": Target(targets_text.paths, _PATHS, 300),
    "lief_answer": Target(targets_text.lief_answer, _JSON),
    "ld_cache": Target(targets_read.loader_cache, vocabulary.LOADER, 600),
    "ld_so": Target(targets_read.loader_strings, vocabulary.LOADER, 600),
    "manylinux": Target(targets_read.manylinux_module, vocabulary.PYTHON, 300),
    "call_sites": Target(targets_read.python_source, vocabulary.PYTHON, 300),
    "diff": Target(targets_read.compared, vocabulary.PLAN, 1200),
    "sbom": Target(targets_read.components, vocabulary.PLAN, 600),
    "cache": Target(targets_text.cache_file, mutation.noise, 2 << 10),
    "cache_store": Target(targets_text.cache_store, mutation.noise, 1 << 10),
    "cache_value": Target(targets_text.cache_value, _JSON),
    "search_stop": Target(targets_search.search, mutation.elf(), _ELF),
    "row_updates": Target(targets_tree.row_updates, mutation.after(2, vocabulary.ROWS), 200),
    "wheel_file": Target(targets_tree.wheel, mutation.after(1, vocabulary.wheel), 2 << 10),
    "tree_state": Target(targets_tree.known_tree, vocabulary.TREE_STATE, 600),
}
