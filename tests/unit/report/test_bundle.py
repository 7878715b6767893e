"""The expression that ``nixpatch bundle`` prints."""

from __future__ import annotations

import os
import re
from importlib import resources

import pytest

from nixpatch.cli import run
from nixpatch.cli.bundle import DEFAULT
from nixpatch.policy import default_policy
from nixpatch.resolve.manylinux import policies


def _printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(["bundle", *arguments]) == 0
    return capsys.readouterr().out


def test_the_file_of_the_package_is_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Made anew with ``nixpatch bundle >src/nixpatch/nix/bundle.nix``."""
    shipped = resources.files("nixpatch").joinpath("nix", "bundle.nix").read_text("utf-8")

    assert _printed(capsys) == _printed(capsys, "--policy", DEFAULT) == shipped


@pytest.mark.parametrize("name", [policy.name for policy in policies()])
def test_all_that_a_policy_promises_but_for_libc(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (policy,) = [policy for policy in policies() if policy.name == name]
    expected = {soname for soname in policy.libraries if default_policy().libc_of(soname) is None}

    found = re.findall(
        r'^    "(lib\S+)" = [a-zA-Z. 0-9]+;$', _printed(capsys, "--policy", name), re.MULTILINE
    )

    assert set(found) == expected
    assert len(found) == len(expected) >= 13


def test_an_unknown_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bundle", "--policy", "manylinux_2_99"]) == 2
    assert "no such manylinux policy; known are manylinux1, manylinux2010" in capsys.readouterr().err
    assert not os.path.exists("manylinux_2_99")
