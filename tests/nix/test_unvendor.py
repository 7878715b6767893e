"""``--unvendor`` on real wheels: the copies go, the wheels work with the store's, restore undoes it."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from pathlib import Path

import pytest

from nix.testbed.sandbox import Sandbox
from nix.testbed.store import NixStore
from nix.testbed.venv import create
from nixpatch.cli.app import run

pytestmark = [pytest.mark.nix, pytest.mark.sandbox, pytest.mark.pypi]

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
CASES = {
    "pillow": (PILLOW, {"libtiff", "libjpeg", "libwebp"}, {"libavif"}),
    "psycopg2-binary": (PSYCOPG2, {"libpq", "libssl", "libcrypto"}, set()),
    "pyzmq": (ZMQ, {"libzmq", "libsodium"}, set()),
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
    work, gone, kept = CASES[wheel]
    venv = create(nix_store, str(tmp_path / "venv"))
    venv.install(wheel)
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
    (document,) = glob.glob(f"{venv.site_packages}/*.dist-info/sboms/nixpatch.cdx.json")
    with open(document, encoding="ascii") as file:
        sbom = json.load(file)
    replaced = [p["value"] for c in sbom["components"] for p in c["properties"] if "replaces" in p["name"]]
    assert replaced
    assert run(["restore", venv.path, "--quiet"]) == 0
    assert files(venv.path) == before
