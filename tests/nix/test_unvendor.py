"""``--unvendor`` on real wheels: the copies go, the wheels work with the store's, restore undoes it."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

import pytest

from nixpatch.cli.app import run
from support.testbed.sandbox import Sandbox
from support.testbed.store import NixStore
from support.testbed.venv import create

# One worker for all: numpy is unpacked and hashed for three of them.
pytestmark = [pytest.mark.nix, pytest.mark.sandbox, pytest.mark.pypi, pytest.mark.xdist_group("unvendor")]

PILLOW = """
import io
from PIL import Image
image = Image.effect_mandelbrot((64, 64), (-2, -2, 2, 2), 50).convert("RGB")
kinds = (("PNG", {}), ("JPEG", {}), ("TIFF", {"compression": "zstd"}), ("WEBP", {"lossless": True}))
for kind, more in kinds:
    file = io.BytesIO()
    image.save(file, kind, **more)
    again = Image.open(file)
    again.load()
    assert again.size == (64, 64), kind
"""
PSYCOPG2 = """
import psycopg2
assert psycopg2.extensions.make_dsn("host=a", password="b c") == "host=a password='b c'"
try:
    psycopg2.connect("host=127.0.0.1 port=1 user=x dbname=y connect_timeout=1")
except psycopg2.OperationalError as error:
    assert "port 1 failed" in str(error), error  # libpq's own words: there is no network
"""
ZMQ = """
import zmq
context = zmq.Context()
push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
pull.connect(f"tcp://127.0.0.1:{push.bind_to_random_port('tcp://127.0.0.1')}")
push.send(b"hello")
assert pull.recv() == b"hello"
"""
SHAPELY = """
import shapely
from shapely import Point, Polygon
square = Polygon([(0, 0), (2, 0), (2, 2), (0, 2)])
assert square.intersection(Point(2, 2).buffer(1, quad_segs=64)).area < square.area
assert shapely.union_all([square, shapely.affinity.translate(square, 1)]).area == 6
assert shapely.from_wkt(square.wkt).equals(square) and square.contains(Point(1, 1))
assert shapely.STRtree([square]).query(Point(1, 1)).tolist() == [0]
assert list(shapely.area([square, square])) == [4, 4]
"""
SOUNDFILE = """
import io
import numpy
import soundfile
tone = numpy.sin(numpy.arange(4410) / 10).astype("float32")
for kind, subtype in (("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "VORBIS")):
    file = io.BytesIO()
    soundfile.write(file, tone, 44100, format=kind, subtype=subtype)
    file.seek(0)
    again, rate = soundfile.read(file, dtype="float32")
    assert (rate, len(again)) == (44100, 4410), kind
    assert abs(again - tone).max() < (0.2 if kind == "OGG" else 1e-6), kind
"""
LXML = """
from lxml import etree
root = etree.fromstring("<a><b n='1'/><b n='2'/></a>")
assert root.xpath("sum(b/@n)") == 3
style = "<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'>"
style += "<xsl:template match='/'><c><xsl:value-of select='count(//b)'/></c></xsl:template></xsl:stylesheet>"
assert etree.XSLT(etree.fromstring(style))(root).getroot().text == "2"
"""
H5PY = """
import io
import h5py
import numpy
numbers = numpy.arange(10000).reshape(100, 100)
file = io.BytesIO()
with h5py.File(file, "w") as new:
    for name in ("gzip", "lzf", "szip"):
        new.create_dataset(name, data=numbers, compression=name, chunks=(50, 100))
    new["gzip"].attrs["unit"] = "m"
with h5py.File(io.BytesIO(file.getvalue()), "r") as old:
    assert all((old[name][:] == numbers).all() for name in ("gzip", "lzf", "szip"))
    assert old["gzip"].attrs["unit"] == "m" and old["gzip"].compression == "gzip"
"""
NUMPY = frozenset({"libgfortran", "libquadmath"})


class Case(NamedTuple):
    work: str
    gone: AbstractSet[str]
    kept: AbstractSet[str] = frozenset()
    wheels: tuple[str, ...] = ()
    """beside the one that gives the case its name"""


CASES = {
    "pillow": Case(PILLOW, {"libtiff", "libjpeg", "libwebp"}, {"libavif"}),
    "psycopg2-binary": Case(PSYCOPG2, {"libpq", "libssl", "libcrypto"}),
    "pyzmq": Case(ZMQ, {"libzmq", "libsodium"}),
    # The store's GEOS is older: functions that shapely calls are not there.
    "shapely": Case(SHAPELY, NUMPY, {"libgeos", "libgeos_c"}, ("numpy",)),
    # libsndfile is opened by the path of its file, under its own name: no graft.
    "soundfile": Case(SOUNDFILE, NUMPY, frozenset(), ("numpy", "cffi", "typing-extensions")),
    # The store has no HDF5; the libraries below it go all the same.
    "h5py": Case(H5PY, NUMPY | {"libaec", "libsz"}, {"libhdf5", "libhdf5_hl"}, ("numpy",)),
}


def files(root: str) -> dict[str, str]:
    found = {}
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path) and not name.endswith(".pyc"):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, root)] = hashlib.sha256(file.read()).hexdigest()
    return found


def stems(venv: str) -> set[str]:
    return {os.path.basename(path).partition("-")[0] for path in glob.glob(f"{venv}/lib/*/*/*.libs/*")}


@pytest.mark.parametrize("wheel", CASES)
def test_the_copies_go_and_come_back(
    nix_store: NixStore, sandbox: Sandbox, tmp_path: Path, wheel: str
) -> None:
    work, gone, kept, more = CASES[wheel]
    venv = create(nix_store, str(tmp_path / "venv"))
    venv.install(wheel, *more)
    before = files(venv.path)
    assert gone | kept <= stems(venv.path)
    assert run([venv.path, "--unvendor", "--quiet"]) == 0
    assert not gone & stems(venv.path)
    assert kept <= stems(venv.path)
    after = files(venv.path)
    done = sandbox.run([venv.python, "-c", work], read_only=[venv.path], env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stderr
    assert run(["verify", venv.path, "--load", "--quiet"]) == 0
    assert run([venv.path, "--quiet"]) == 0
    assert run([venv.path, "--unvendor", "--quiet"]) == 0
    assert files(venv.path) == after
    documents = glob.glob(f"{venv.site_packages}/*.dist-info/sboms/nixpatch.cdx.json")
    assert documents
    for document in documents:
        with open(document, encoding="ascii") as file:
            sbom = json.load(file)
        assert any("replaces" in p["name"] for c in sbom["components"] for p in c["properties"])
    assert run(["restore", venv.path, "--quiet"]) == 0
    assert files(venv.path) == before


def test_a_wheel_without_grafts_says_so(
    nix_store: NixStore, sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    venv = create(nix_store, str(tmp_path / "venv"))
    venv.install("lxml")
    assert run([venv.path, "--unvendor"]) == 0
    assert "there is no grafted library" in capsys.readouterr().out
    done = sandbox.run([venv.python, "-c", LXML], read_only=[venv.path])
    assert done.returncode == 0, done.stderr
