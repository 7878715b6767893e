"""What must hold for any bytes that are taken for one of the texts nixpatch reads. Functions of bytes."""

import contextlib
import csv
import functools
import gzip
import hashlib
import io
import os
import shutil
import sqlite3
import tempfile
import zlib
from array import array
from importlib import resources

from packaging.utils import canonicalize_name

from nixpatch import policy
from nixpatch.elf.lief.writer import parse_answer
from nixpatch.errors import FileRefused
from nixpatch.installed import dists, provenance, python_layout, record, shebang, target_python
from nixpatch.model import Dist, FileHash, Libc, Machine, Target
from nixpatch.resolve import dist_graph, search_path
from nixpatch.store import catalog, lockfile, whole_store
from nixpatch.store.cache import Cache, RowKind
from nixpatch.store.cached_reads import decode

NEW = FileHash(7, {name: hashlib.new(name, b"x").digest() for name in ("sha256", "sha384", "sha512")})
TARGET = Target(
    python="/p/bin/python3.11",
    found_by="--python",
    version=(3, 11),
    machine=Machine(62, 64, "little"),
    loader="/l/ld-linux-x86-64.so.2",
    libc=Libc.GLIBC,
    libc_version=(2, 36),
    libc_versions=frozenset({"GLIBC_2.2.5", "GLIBC_2.36"}),
    libc_dir="/l",
)
csv.field_size_limit(1 << 30)


def record_rows(data: bytes) -> None:
    """Rows keep their bytes, are read as by Python's csv, and a change touches no other row."""
    before = record.parse(data)
    assert before.data == data
    assert before.with_changes({}).data == data
    text = data.decode("utf-8", "surrogateescape")
    expected = [row for row in csv.reader(io.StringIO(text, newline="")) if len(row) == 3]
    found = [row.path for row in before.rows if row.path is not None]
    # csv drops what stands after the last quote of a file that ends inside one; we only keep such a row.
    open_ended = bool(before.rows) and before.rows[-1].path is None
    # As bytes: a quote may stand between the bytes of one character, and csv reads characters.
    assert [*map(os.fsencode, found)] == [os.fsencode(row[0]) for row in expected][: len(found)]
    assert len(found) == len(expected) or (open_ended and len(found) == len(expected) - 1)
    assert list(record.paths(data)) == found
    if zlib.crc32(data) % 4:  # to change takes three times as long as to read
        return
    name = found[len(data) % len(found)] if found else "new\n,name"
    after = record.parse(before.with_row(name, NEW).data)
    assert after.rows_for(name)
    others = [row.raw for row in before.rows[:-1] if row.path != name]  # the last may get a line ending
    assert [row.raw for row in after.rows if row.path != name][: len(others)] == others
    assert after.with_row(name, NEW) == after
    assert [row.path for row in after.without(name).rows] == [p.path for p in after.rows if p.path != name]


def provenance_file(data: bytes) -> None:
    """A provenance file is ours or it is refused; what is ours can be written and read again."""
    try:
        found = provenance.load(data)
    except provenance.ProvenanceError as error:
        str(error)
        return
    for path, file in found.files.items():
        for name in (path, file.search_path or "", file.interp or "", *file.needs, *file.needs.values()):
            os.lstat("/dev/null") if not name else os.path.lexists(os.fsencode(name))
            assert "\0" not in name
    again = provenance.dump(found)
    assert provenance.load(again) == found
    assert provenance.dump(provenance.load(again)) == again


def first_line(data: bytes) -> None:
    """Another program and back again gives the same bytes, and is what is read then."""
    read = shebang.read_shebang(data)
    if read is None:
        return
    bash = "/nix/store/x-bash/bin/bash"
    try:
        changed = shebang.with_program(data, bash)
    except ValueError:
        return
    after = shebang.read_shebang(changed)
    assert after is not None
    assert (after.program, after.argument) == (bash, read.argument)
    try:
        back = shebang.with_program(changed, read.program)
    except ValueError:  # relative
        assert not read.program.startswith("/")
    else:
        assert back == data


def lock_file(data: bytes) -> None:
    """A lock is one or it is refused; nothing in it leads out of its store paths."""
    try:
        found = lockfile.load(data)
    except lockfile.LockfileError as error:
        str(error)
        return
    for soname, library in found.libraries.items():
        os.fsencode(library.path)
        assert "\0" not in library.path
        assert os.path.normpath("/s/" + library.file) == "/s/" + library.file
        assert os.path.basename(library.path) == soname
    found.directories()
    again = lockfile.dump(found)
    assert lockfile.load(again) == found
    assert lockfile.dump(lockfile.load(again)) == again


def policy_file(data: bytes) -> None:
    """TOML that holds rules, or an error with a name; globs never take their time."""
    try:
        tables = policy.parse(policy.toml(data))
    except policy.PolicyError as error:
        str(error)
        return
    for soname in ("libcuda.so.1", "a" * 60, ""):
        tables.is_driver(soname)
        tables.is_system(soname)
        tables.libc_of(soname)
        tables.ignored("/t/lib/python3.11/site-packages/" + "a" * 60, soname)
    tables.dlopened_by("/t/x.so")
    assert tables.extended(tables).drivers == (*tables.drivers, *tables.drivers)


def metadata(data: bytes) -> None:
    """Headers end at the first empty line, and each value is one line."""
    found = dists.headers(data)
    assert found.keys() <= {"name", "version", "requires-dist"}
    for values in found.values():
        assert values
        for value in values:
            assert value == value.strip()
            assert "\n" not in value
            assert value
    canonicalize_name(found.get("name", [""])[0])


def requires_dist(data: bytes) -> None:
    """A line that no tool can read is as if it were not there."""
    _lenders(tuple(data.decode("utf-8", "replace").splitlines()))


def _lenders(requires: tuple[str, ...]) -> None:
    lines = {"a": requires[:8], "torch": ("a[x]",), "numpy": ()}
    infos = [f"/s/{name}.dist-info" for name in lines]
    all_of = [Dist(name, "1", "/s", f"/s/{name}.dist-info", required) for name, required in lines.items()]
    found = dist_graph.lenders(all_of, TARGET)
    for info in infos:
        assert sorted((info, *found[info])) == sorted(infos)


def pyvenv_cfg(data: bytes) -> None:
    """Keys are lower case, a version is two numbers or none."""
    config = python_layout.parse_config(data)
    for key, value in config.items():
        assert key == key.lower().strip()
        assert value == value.strip()
        os.fsencode(value)
    version = python_layout.config_version(config)
    assert version is None or all(number >= 0 for number in version)


def script(data: bytes) -> None:
    """The Python that a script names is an absolute path or none."""
    named = target_python.python_of_script(data)
    assert named is None or named.startswith("/")


def soname(data: bytes) -> None:
    """Any soname can be looked up: in the catalog, in the policy, as a version."""
    name = os.fsdecode(data)
    small = _small_catalog()
    known = small.lookup(name)
    assert known is None or isinstance(known.expression, str)
    small.alternatives(name)
    for near in small.near(name):
        assert near.soname != name
    tables = policy.default_policy()
    tables.libc_of(name)
    tables.is_driver(name)
    tables.is_system(name)
    tables.ignored("/t/" + name, name)
    from nixpatch.resolve.provider_choice import newest, versions_beyond_libc
    from nixpatch.store_paths import library_stem, library_version, version_key, version_of

    versions_beyond_libc({name, "GLIBC_2.40"}, TARGET)
    newest({name, "GLIBC_2.2.5"})
    assert name.startswith(library_stem(name))
    library_version(name)
    version_key(version_of(name))


def paths(data: bytes) -> None:
    """What is kept of a search path stays in the tree, whatever it says; ld.so finds what it found."""
    text, *more = os.fsdecode(data).split("\0")
    prefix, directory, store = "/t/venv", "/t/venv/lib/python3.11/site-packages/p", "/nix/store"
    old = search_path.split(
        text,
        directory=directory,
        prefix=prefix,
        store_dir=store,
        driver_directory="/run/d",
        exists=lambda _: True,
    )
    for entry in old.kept:
        where = search_path.expand(entry, directory)
        assert where is not None
        assert search_path.inside(os.path.normpath(where), prefix)
    for entry in old.store:
        where = search_path.expand(entry, directory)
        assert where is not None
        assert search_path.inside(os.path.normpath(where), store)
    joined = search_path.join(
        old, directory=directory, new=("$ORIGIN/x", "/nix/store/y"), driver_directory=None
    )
    again = search_path.split(
        joined,
        directory=directory,
        prefix=prefix,
        store_dir=store,
        driver_directory="/run/d",
        exists=lambda _: True,
    )
    assert not [drop for drop in again.dropped if drop.harmful]
    for other in more[:2]:
        wanted = os.path.normpath("/t/venv/" + other)
        entry = search_path.relative_entry(directory, wanted)
        if search_path.leads_to(entry, directory, wanted):
            assert os.path.normpath(search_path.expand(entry, directory) or "") == os.path.normpath(wanted)


def lief_answer(data: bytes) -> None:
    """Whatever the child says is an address or a refusal."""
    code, _, said = data.partition(b"\n")
    number = {b"": 0, b"1": 1}.get(code[:1], 0 if code[:1] != b"-" else -6)
    with contextlib.suppress(FileRefused):
        address = parse_answer(number, said, code[1:])
        assert isinstance(address, int)
        assert address >= 0


@functools.cache
def _small_catalog() -> catalog.Catalog:
    """Give the catalog's own rows, not all of them: a search takes three milliseconds in the whole of it."""
    packed = resources.files("nixpatch").joinpath("data", "libraries.txt.gz").read_bytes()
    said, _, body = gzip.decompress(packed).decode("ascii").partition("\n\n")
    return catalog.Catalog(
        said[: said.rindex("\n", 0, 1000)] + "\n\n" + body[: body.rindex("\n", 0, 2000) + 1]
    )


_DIRECTORY: "list[str]" = []


def cache_file(data: bytes) -> None:
    """A cache file that is not what we wrote is as good as none, and never stands in the way."""
    if not _DIRECTORY or not os.path.isdir(_DIRECTORY[0]):
        _DIRECTORY[:] = [tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)]
    directory = os.path.join(_DIRECTORY[0], str(os.getpid()))
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "cache.sqlite")
    with open(path, "wb") as file:
        file.write(data)
    cache = Cache(path, "fuzz")
    for kind in RowKind:
        for key in list(cache._rows[kind])[:20]:
            value = cache.get(kind, os.fsdecode(key), cache._rows[kind][key][0])
            assert value is None or isinstance(value, bytes)
            if value is not None and kind is RowKind.HEADER:
                decode(value)
    if zlib.crc32(data) % 32:  # to write takes ten times as long as to read
        return
    cache.put(RowKind.NAMES, "/x", b"stamp", b"value")
    cache.save()
    fresh = Cache(path, "fuzz")
    assert fresh.get(RowKind.NAMES, "/x", b"stamp") == b"value"
    if len(data) % 256 == 0:
        shutil.rmtree(directory)


def cache_value(data: bytes) -> None:
    """A row with a right checksum and any value gives a header or nothing."""
    found = decode(data)
    if found is None or isinstance(found, str):
        return
    for name in (
        *found.needed,
        *found.version_defs,
        *found.libc_needs,
        found.search_path,
        found.soname or "",
    ):
        os.fsencode(name)
    assert isinstance(found.machine.name, str)
    assert isinstance(found.executable, bool)


def cache_store(data: bytes) -> None:
    """A row of a whole store gives tables that can be asked anything, or nothing."""
    known = whole_store.unpacked(data)
    if known is not None:
        found, state, loose = known
        for name in (*found.names[:20], b"libz.so.1", b"", b"\xff"):
            assert set(found.directories_of(os.fsdecode(name))) <= {
                os.fsdecode(place) for place in found.directories
            }
        again = whole_store.unpacked(whole_store.packed(found, state, loose))
        assert again is not None
        assert list(again[0].names) == list(found.names)
        assert again[1:] == (state, loose)
    listings = whole_store.unpacked_listings(data)
    stamps = {os.fsdecode(key[:-41]): key[-40:] for key in listings}
    if len(stamps) == len(listings):
        names = {os.fsdecode(key[:-41]): value for key, value in listings.items()}
        assert whole_store.unpacked_listings(whole_store.packed_listings(names, stamps)) == listings


def store_row() -> bytes:
    """Give the bytes of a row of a small store."""
    names = (b"libgcc_s.so.1", b"libstdc++.so.6", b"libz.so.1")
    places = (b"/nix/store/a-gcc/lib", b"/nix/store/b-zlib/lib", b"/nix/store/b-zlib/lib64")
    found = whole_store.StoreNames(names, places, array("I", [0, 1, 2, 4]), array("I", [0, 0, 1, 2]))
    return whole_store.packed(found, b"s" * 16, [b"/nix/store/c-here"])


def empty_cache() -> bytes:
    """Give the bytes of a cache file with two rows."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "cache.sqlite")
        cache = Cache(path, "fuzz")
        cache.put(RowKind.NAMES, "/nix/store/a/lib", b"s" * 40, b"libz.so.1\0")
        cache.put(RowKind.HEADER, "/nix/store/a/lib/libz.so.1", b"s" * 40, b'"not an ELF file"')
        cache.save()
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA page_size = 512")
            database.execute("VACUUM")
        with open(path, "rb") as file:
            return file.read()
