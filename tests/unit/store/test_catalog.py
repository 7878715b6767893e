"""The catalog soname -> nixpkgs attribute: what it says, what it costs, how it is rebuilt."""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from nixpatch.model.missing import Attribute, AttributeKind
from nixpatch.report.missing import advice, build_inputs
from nixpatch.store import catalog
from nixpatch.store.catalog import Catalog, parse

BUILD = os.path.join(os.path.dirname(__file__), "..", "..", "..", "fixtures", "catalog", "build.py")
DATA = resources.files("nixpatch").joinpath("data", "libraries.txt.gz")

PEOPLE_ASK_FOR = """
zlib: libz.so.1
stdenv.cc.cc.lib: libstdc++.so.6 libgcc_s.so.1 libgomp.so.1 libatomic.so.1 libquadmath.so.0
gfortran.cc.lib: libgfortran.so.5 | lib.getLib glibc: libm.so.6 | libGL: libGL.so.1 libEGL.so.1
libx11: libX11.so.6 | libxcb: libxcb.so.1 | libxcb-cursor: libxcb-cursor.so.0
libxcb-wm: libxcb-icccm.so.4 | libxkbcommon: libxkbcommon.so.0 | onetbb: libtbb.so.12
lib.getLib openssl: libssl.so.3 libcrypto.so.3 | lib.getLib curl: libcurl.so.4
lib.getLib glib: libglib-2.0.so.0 | expat: libexpat.so.1 | libxcrypt-legacy: libcrypt.so.1
libffi: libffi.so.8 | lib.getLib libxml2_13: libxml2.so.2 | icu76: libicuuc.so.76 | icu73: libicuuc.so.73
python313: libpython3.13.so.1.0 | alsa-lib: libasound.so.2 | libpulseaudio: libpulse.so.0
libpq: libpq.so.5 | unixodbc: libodbc.so.2 | systemdLibs: libudev.so.1 | libuuid.lib: libuuid.so.1
ffmpeg_7.lib: libavcodec.so.61 | wayland: libwayland-client.so.0 | qt6.qtbase: libQt6Core.so.6
openmpi: libmpi.so.40 | blas: libblas.so.3 | lib.getLib libjpeg: libjpeg.so.62 | nss: libnss3.so
lib.getLib cudaPackages.cuda_cudart: libcudart.so.12
lib.getLib cudaPackages.cuda_nvrtc: libnvrtc-builtins.so.12.8
"""
EXPRESSIONS = {
    soname: group.partition(": ")[0].strip()
    for group in re.split(r"[|\n]", PEOPLE_ASK_FOR)
    for soname in group.partition(": ")[2].split()
}


@pytest.mark.parametrize("soname", EXPRESSIONS)
def test_what_people_ask_for(soname: str) -> None:
    found = catalog.lookup(soname)

    assert found is not None
    assert found.kind is AttributeKind.PACKAGE
    assert found.expression == EXPRESSIONS[soname]


@pytest.mark.parametrize(
    ("soname", "kind", "word"),
    [
        ("libcuda.so.1", AttributeKind.DRIVER, "/run/opengl-driver/lib"),
        ("libnvidia-ml.so.1", AttributeKind.DRIVER, "driver"),
        ("libnvidia-glcore.so.570.86", AttributeKind.DRIVER, "driver"),
        ("libtorch_cpu.so", AttributeKind.WHEEL, "wheel torch"),
        ("libshiboken6.abi3.so.6.9", AttributeKind.WHEEL, "shiboken6"),
        ("libc.musl-x86_64.so.1", AttributeKind.NONE, "musllinux"),
    ],
)
def test_what_no_package_of_nixpkgs_brings(soname: str, kind: AttributeKind, word: str) -> None:
    found = catalog.lookup(soname)

    assert found is not None
    assert (found.kind, found.attribute, found.expression) == (kind, "", "")
    assert word in found.note
    assert advice(soname) == found.note


def test_notes_say_what_would_otherwise_surprise() -> None:
    notes = {name: getattr(catalog.lookup(name), "note", "") for name in ("libX11.so.6", "libcublas.so.12")}

    assert notes["libX11.so.6"] == "xorg.libX11 before nixpkgs 26.05"
    assert notes["libcublas.so.12"].startswith("unfree")
    assert catalog.packaged().alternatives("libX11.so.6")[0].expression == "xorg.libX11"


@pytest.mark.parametrize(
    "name",
    ["", "libz", "libz.so.", "z.so.1", ".so", " libz.so.1", "libz.so.1 libz.so.1.3.2", "libz\n.so", "ü.so"],
)
def test_part_of_a_name_or_more_than_one_finds_nothing(name: str) -> None:
    assert catalog.lookup(name) is None
    assert catalog.packaged().alternatives(name) == ()


def test_a_near_miss_names_the_versions_there_are() -> None:
    near = catalog.packaged().near("libsodium.so.23")

    assert catalog.lookup("libsodium.so.23") is None
    assert [one.attribute.expression for one in near] == ["libsodium"]
    assert re.fullmatch(r"libsodium\.so\.\d+", near[0].soname)
    assert f"nixpkgs has {near[0].soname} in libsodium" in advice("libsodium.so.23")


def test_of_near_misses_the_nearest_comes_first() -> None:
    text = "\nicu70\tlibicuuc.so.70 \nicu76\tlibicuuc.so libicuuc.so.76 \nx\tlibicuuc-a.so.75 \n"

    near = Catalog(text).near("libicuuc.so.75")

    assert [one.soname for one in near] == ["libicuuc.so.76", "libicuuc.so.70"]


def test_a_pattern_yields_to_a_whole_name() -> None:
    sample = Catalog("@driver\tlibnvidia-*.so*\tdriver\n\nbox a.source b\tlibnvidia-box.so.1 \n")

    assert getattr(sample.lookup("libnvidia-box.so.1"), "attribute", "") == "box"
    assert getattr(sample.lookup("libnvidia-ml.so.1"), "kind", None) is AttributeKind.DRIVER
    # An attribute is no soname, though it looks like one.
    assert sample.lookup("a.source") is None


@pytest.mark.parametrize(
    ("token", "expression"),
    [
        ("zlib", "zlib"),
        ("a.b^lib", "a.b.lib"),
        ("openssl^out", "lib.getLib openssl"),
        ("cudaPackages.nccl^*", "lib.getLib cudaPackages.nccl"),
        ("3proxy", 'pkgs."3proxy"'),
        ("sets.2x^lib", 'sets."2x".lib'),
        ("with", 'pkgs."with"'),
    ],
)
def test_expressions(token: str, expression: str) -> None:
    assert parse(token).expression == expression


def test_an_unknown_word_is_an_error() -> None:
    with pytest.raises(ValueError, match="@nobody"):
        parse("@nobody")


def unpacked() -> str:
    return gzip.decompress(DATA.read_bytes()).decode("ascii")


def every_attribute() -> dict[str, Attribute]:
    tokens = {token for line in unpacked().splitlines() for token in line.partition("\t")[0].split()}
    return {token: parse(token) for token in sorted(tokens)}


def test_the_file_is_small_and_whole() -> None:
    rows = unpacked().replace("\n\n", "\n").splitlines()
    sonames = [name for row in rows for name in row.split("\t")[1].split()]

    assert len(DATA.read_bytes()) < 300_000
    assert len(sonames) == len(set(sonames)) > 26_000
    assert all(re.fullmatch(r"[!-~]+\.so[!-~]*", name) for name in sonames)
    assert all(catalog.lookup(name) for name in sonames[::97] if "*" not in name)


def test_nobody_is_sent_to_what_must_never_be_linked() -> None:
    wrong = re.compile(r"(?i)fhs|bootstrap|pkgsCross|i686|(^|\.)tests?\.|^(zluda|glamoroustoolkit)$|gccNG")

    assert [token for token in every_attribute() if wrong.search(token)] == []


def test_a_first_lookup_is_quick() -> None:
    catalog.packaged.cache_clear()
    begun = time.perf_counter()
    catalog.lookup("libz.so.1")
    # 7 ms where it was written; the bound leaves room for a loaded machine.
    assert time.perf_counter() - begun < 0.2


@pytest.mark.nix
def test_nix_parses_every_expression_of_the_file() -> None:
    if shutil.which("nix-instantiate") is None:
        pytest.skip("not installed: nix-instantiate")
    text = f"pkgs: {{ {build_inputs(every_attribute().values())} }}"

    subprocess.run(["nix-instantiate", "--parse", "-"], input=text.encode(), capture_output=True, check=True)


@pytest.fixture(scope="module")
def build() -> Any:
    """Load the script that makes the file; it is no part of the package."""
    spec = importlib.util.spec_from_file_location("catalog_build", BUILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["catalog_build"] = module
    spec.loader.exec_module(module)
    return module


SAMPLE = """# a comment
libz.so.1\tlibz\tout\t1\tlibz-1.2.8
libz.so.1\tzlib\tout\t1\tzlib-1.3.2
libz.so.1\tminimal-bootstrap.zlib\tout\t1\tzlib-1.3.1
libz.so.1\tsteam-fhs\tout\t1\tsteam-fhs
libstdc++.so.6\tlibgcc\tlib\t1\tgcc-15.2.0-lib
libav.so.6\tjellyfin-av\tlib\t1\tav-7
libav.so.6\tav-full\tlib\t1\tav-7
libav.so.6\tav_7\tlib\t1\tav-7
libav.so.6\tplayer.libav\tlib\t1\tav-7
libinner.so.1\tapplication\tout\t0\tinner-1.0
libssl.so.3\tazure-sdk-for-cpp.openssl\tout\t1\topenssl-3.6.1
openssl\tazure-sdk-for-cpp.openssl\tbin\t1\topenssl-3.6.1-bin
plugin.so\thost\tout\t1\thost-1
libcuda.so.1\tzluda\tout\t1\tzluda-6
"""


def made(build: Any, lines: list[str]) -> str:
    with open(os.path.join(os.path.dirname(BUILD), "curated.tsv"), encoding="utf-8") as file:
        curated = build.read_curated(file)
    table = sys.modules["nix_index"].read_table(lines)
    text = build.render(build.rows(table, curated), curated)
    assert isinstance(text, str)
    return text


def test_ranking(build: Any) -> None:
    sample = Catalog(made(build, SAMPLE.splitlines()))

    def first(soname: str) -> str:
        return getattr(sample.lookup(soname), "expression", "nothing")

    assert first("libz.so.1") == "zlib"
    assert [one.expression for one in sample.alternatives("libz.so.1")] == ["libz"]
    assert first("libstdc++.so.6") == "stdenv.cc.cc.lib"
    assert first("libav.so.6") == "av_7.lib"
    others = [one.attribute for one in sample.alternatives("libav.so.6")]
    assert others == ["jellyfin-av", "av-full", "player.libav"]
    assert first("libssl.so.3") == "lib.getLib openssl"
    # In an attribute's closure is not in the attribute; and a plugin is nobody's need.
    assert first("libinner.so.1") == first("plugin.so") == "nothing"
    assert getattr(sample.lookup("libcuda.so.1"), "kind", None) is AttributeKind.DRIVER


def test_the_same_rows_in_any_order_give_the_same_bytes(build: Any) -> None:
    lines = SAMPLE.splitlines()

    assert build.pack(made(build, lines)) == build.pack(made(build, lines[::-1]))


def test_the_curated_table_is_in_the_file(build: Any) -> None:
    head = made(build, []).partition("\n\n")[0]

    assert set(head.splitlines()) <= set(unpacked().splitlines())


def entry(meta: str, share: bytes, rest: str) -> bytes:
    return meta.encode() + b"\0" + share + rest.encode() + b"\n"


def database() -> bytes:
    """Write what nix-index would, with a share that is a line feed and one that takes three bytes."""
    deep = "/lib/" + "d" * 200
    package = (
        '{"store_dir":"/nix/store","hash":"h","name":"%s","origin":{"attr":"%s","output":"%s","toplevel":%s}}'
    )
    return b"".join(
        [
            entry("2d", b"\x00", ""),
            entry("3d", b"\x00", "/lib"),
            entry("5s", b"\x04", "/liba.so"),  # shares 4: "/lib"
            entry("/nix/store/x/libab.so.1s", b"\x05", "b.so.1"),  # shares 9: "/lib/liba"
            entry("7r", b"\x00", ".so.1"),
            entry("7r", b"\xfb", deep[4:] + "/libno.so"),  # shares 4
            entry("7r", b"\x80\x00\xc9", "/libnone.so"),  # shares 205, in three bytes
            entry("7x", b"\x80\xff\x3d", "libz-long.so.1"),  # shares 10: "/lib/ddddd"
            entry("p", b"\xf6", package % ("a-1", "a", "out", "true")),
            entry("4d", b"\x00", "/lib/sub-1"),
            entry("7r", b"\x0a", "/libsub.so"),  # shares 10: a line feed
            entry("7r", b"\xfb", "libtop.so.2"),  # shares 5: "/lib/"
            entry("p", b"\xfb", package % ("b-1", "b", "bin", "true")),
        ]
    )


def test_a_database_is_read_as_nix_index_writes_it(build: Any, tmp_path: Path, monkeypatch: Any) -> None:
    # zstd itself is no concern of ours: a stand-in that passes on what it is given.
    unpacker = tmp_path / "zstd"
    unpacker.write_text("#!/bin/sh\nexec cat\n")
    unpacker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "files"
    path.write_bytes(b"NIXI\x01\0\0\0\0\0\0\0" + database())

    index = build.read(str(path))

    assert {(one.name, one.attribute, one.elsewhere) for one in index.libraries} == {
        ("liba.so", "a", False),
        ("libab.so.1", "a", True),
        ("liba.so.1", "a", False),
        ("dddddlibz-long.so.1", "a", False),
        ("libtop.so.2", "b", False),
    }
    assert index.with_bin == {"b"}
