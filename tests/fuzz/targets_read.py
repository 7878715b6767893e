"""What must hold for any bytes that others wrote and nixpatch only reads. Functions of bytes."""

import io
import json
import os
from collections.abc import Mapping

from rich.console import Console

from nixpatch.errors import RequestError
from nixpatch.installed import loader_defaults
from nixpatch.installed.manylinux_parser import answers
from nixpatch.model.diff import DiffSide
from nixpatch.operations.diff import compare, parse_side
from nixpatch.report import diff as report
from nixpatch.report.as_json import difference_object
from nixpatch.resolve.python_names import opened_names
from nixpatch.unvendor.versions import components as sbom_components

_SENTENCE = 1000  # characters


def loader_cache(data: bytes) -> None:
    """A cache names files by soname, or it is none; every name can be one."""
    for prefix in (b"", data[:1] and loader_defaults._NEW):
        try:
            found: Mapping[str, tuple[str, ...]] = loader_defaults.parse(prefix + data)
        except loader_defaults.NotACache:
            continue
        for name, paths in found.items():
            assert paths
            for path in (name, *paths):
                os.fsencode(path)
                assert "\0" not in path


def loader_strings(data: bytes) -> None:
    """The directories of a loader are absolute paths, and so is its cache."""
    directories, cache = loader_defaults.compiled_in(data, "/lib")
    for name in directories:
        os.fsencode(name)
        assert name.startswith("/")
        assert "\0" not in name
    assert cache is None or cache.startswith("/")


def manylinux_module(data: bytes) -> None:
    """A module says yes, no, or that it would have to be run."""
    said = answers(data)
    for version in ((2, 5), (2, 17), (2, 36)):
        allowed = said.allows(version, "x86_64")
        assert allowed in {True, False, None}
        assert not said.computed or allowed is None
    for value in said.attributes.values():
        assert isinstance(value, bool)


def python_source(data: bytes) -> None:
    """What a source opens are names of files, with a whole path or without a directory."""
    for site in opened_names({"x.py": data}):
        assert site.name.startswith("/") or "/" not in site.name
        assert site.name.isascii()
        assert site.name.isprintable()
        assert site.line >= 1


def compared(data: bytes) -> None:
    """What is taken for a plan or a lock can be compared and told of, or it is refused in a sentence."""
    one, _, other = data.partition(b"\0")
    before = _side(one)
    after = _side(other or b'{"command":"plan","trees":[]}')
    if before is None or after is None:
        return
    found = compare(before, after)
    assert compare(after, after).same
    json.dumps(difference_object(found, "before", "after"))
    Console(file=io.StringIO(), width=80).print(report.text(found, verbosity=1))


def _side(data: bytes) -> DiffSide | None:
    try:
        return parse_side(data, "x")
    except RequestError as error:
        if len(str(error)) > _SENTENCE:
            raise AssertionError("a refusal of more than a sentence") from error
        return None


def components(data: bytes) -> None:
    """What an SBOM lists are names with versions."""
    for name, version in sbom_components(data):
        assert isinstance(name, str)
        assert isinstance(version, str)


def opened(data: bytes) -> None:
    """Any source has names or none; they are the same the next time and can be written down."""
    sources = {"a.py": data, "b.py": b"from a import *\nload('libb.so')\n"}
    names = opened_names(sources)
    assert opened_names(sources) == names
    for name in names:
        assert name.path in {"a.py", "b.py"}
        assert name.line >= 1
        json.dumps(name.name).encode("ascii")
