from collections.abc import Mapping
from dataclasses import replace

import pytest

from nixpatch.model import Dist
from nixpatch.resolve.dist_graph import lenders, marker_environment
from support.resolving import AARCH64, TARGET


def order(requires: Mapping[str, tuple[str, ...]], of: str, *, aarch64: bool = False) -> list[str]:
    target = replace(TARGET, machine=AARCH64) if aarch64 else TARGET
    dists = [Dist(name, "1", "/s", f"/s/{name}.dist-info", lines) for name, lines in requires.items()]
    return [
        info.removeprefix("/s/").removesuffix(".dist-info")
        for info in lenders(dists, target)[f"/s/{of}.dist-info"]
    ]


def test_required_dists_nearest_first_then_the_others_by_name() -> None:
    requires = {
        "alien": (),
        "torch": ("mid>=1", "Near_By"),
        "near-by": (),
        "mid": ("far",),
        "far": ("torch",),
        "b": (),
    }
    assert order(requires, "torch") == ["mid", "near-by", "far", "alien", "b"]
    assert order(requires, "b") == ["alien", "far", "mid", "near-by", "torch"]


@pytest.mark.parametrize(
    ("line", "applies"),
    [
        ("z", True),
        ('z==12.4; platform_system == "Linux" and platform_machine == "x86_64"', True),
        ('z; platform_machine == "aarch64"', False),
        ('z; sys_platform == "win32"', False),
        ('z; python_version < "3.12"', False),
        ('z; python_version >= "3.9"', True),
        ('z; extra == "cuda"', False),
        ('z; platform_release >= "20"', False),
        ('z; platform_system ~= "Linux"', False),
        ("z @ https://example.org/z.whl", True),
        ("z (>=1.0", False),
        ("", False),
        ("-e ./z", False),
    ],
)
def test_line(line: str, applies: bool) -> None:
    assert (order({"a": (), "t": (line,), "z": ()}, "t")[0] == "z") is applies


def test_markers_are_about_the_target() -> None:
    requires = {"a": (), "t": ('z; platform_machine == "aarch64"',), "z": ()}
    assert order(requires, "t", aarch64=True) == ["z", "a"]


def test_extras_that_a_dist_asks_for() -> None:
    # torch 2.9 gets CUDA like this.
    requires = {
        "a": (),
        "cuda-toolkit": ('nvidia-cublas; extra == "cublas"', 'nvidia-other; extra == "other"'),
        "nvidia-cublas": (),
        "nvidia-other": (),
        "torch": ('cuda-toolkit[CuBLAS]==13; sys_platform == "linux"',),
    }
    assert order(requires, "torch") == ["cuda-toolkit", "nvidia-cublas", "a", "nvidia-other"]
    assert order(requires, "cuda-toolkit") == ["a", "nvidia-cublas", "nvidia-other", "torch"]


def test_dist_that_requires_itself_with_an_extra() -> None:
    requires = {"a": (), "t": ('t[fast]; python_version > "3"', 'z; extra == "fast"'), "z": ()}
    assert order(requires, "t") == ["z", "a"]


def test_environment_without_a_known_version() -> None:
    assert marker_environment("x86_64", None)["python_version"] == "3.11"
    assert marker_environment("x86_64", (3, 12))["python_full_version"] == "3.12.0"
