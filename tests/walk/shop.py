"""Wheels of three small dists in two versions each, and the store that lacks nothing of what they need."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from support.opened import BASH
from support.world import HASH, NO_LOADER

SOURCES = {
    "answer.c": "int answer(void) { return ANSWER; }\n",
    "ext.c": "int answer(void);\nint ask(void) { return answer() + VERSION; }\n",
    "tool.c": "int answer(void);\nint main(void) { return answer() + VERSION; }\n",
    "helper.c": "int help(void) { return HELP; }\n",
    "user.c": "int help(void);\nint use(void) { return help() + VERSION; }\n",
    "versions.map": "V_1 { global: help; local: *; };\n",
}
GRAFT = "libhelper-0badf00d.so.2.0.0"
OPENER = b'import ctypes\ndef call():\n    return ctypes.CDLL("libanswer.so.1").answer()\n'
VERSIONS = ("1.0", "2.0")
Contents = Mapping[str, bytes | str]
"""by name: bytes, or the path of a file"""


@dataclass(frozen=True)
class Wheel:
    """A wheel, and the files that it installs by path relative to site-packages."""

    name: str
    version: str
    path: str
    files: Mapping[str, bytes] = field(compare=False)


@dataclass
class Shop:
    """All wheels, and a store with what they need."""

    root: str
    wheels: dict[tuple[str, str], Wheel] = field(default_factory=dict)

    @property
    def store(self) -> str:
        return os.path.join(self.root, "nix", "store")

    @property
    def second(self) -> str:
        """Another copy of the library of the store."""
        return os.path.join(self.store, "2" * 32 + "-answer-1.1", "lib")

    def build(self) -> None:
        """Make everything."""
        source = os.path.join(self.root, "src")
        os.makedirs(source)
        for name, text in SOURCES.items():
            with open(os.path.join(source, name), "w", encoding="ascii") as file:
                file.write(text)
        first = os.path.join(self.store, f"{HASH}-answer-1.0", "lib")
        soname = "libanswer.so.1"
        for directory, value in ((first, 42), (self.second, 43)):
            self._compile("answer.c", f"{directory}/{soname}", f"-DANSWER={value}", soname=soname)
        versions = f"-Wl,--version-script={source}/versions.map"
        helper = os.path.join(self.store, f"{HASH[::-1]}-helper-2.1", "lib", "libhelper.so.2")
        self._compile("helper.c", helper, "-DHELP=2", versions, soname="libhelper.so.2")
        os.makedirs(os.path.join(self.store, BASH, "bin"))
        os.symlink("/bin/bash", os.path.join(self.store, BASH, "bin", "bash"))
        answer = os.path.join(self.store, f"{HASH}-answer-1.0", "lib", "libanswer.so.1")
        graft = self._compile("helper.c", f"{source}/{GRAFT}", "-DHELP=1", versions, soname=GRAFT)
        for number, version in enumerate(VERSIONS):
            define = f"-DVERSION={number}"
            ext = self._compile("ext.c", f"{source}/ext{number}.so", define, answer)
            loader = f"-Wl,--dynamic-linker={NO_LOADER}"
            tool = self._compile("tool.c", f"{source}/tool{number}", define, answer, loader, shared=False)
            rpath = "-Wl,-rpath,$ORIGIN/../beta.libs"
            user = self._compile("user.c", f"{source}/user{number}.so", define, graft, rpath)
            only = f"alpha/_only{number}.so"  # of one version, so that an upgrade removes a file
            modules: Contents = {"alpha/__init__.py": b"", "alpha/_ext.so": ext, only: ext}
            self._wheel("alpha", version, modules, {"alpha-tool": tool})
            grafted: Contents = {"beta/__init__.py": b"", "beta/_user.so": user, f"beta.libs/{GRAFT}": graft}
            self._wheel("beta", version, grafted, {})
            script = f"#!/bin/bash -e\necho ran {version}\n".encode()
            module = OPENER + f"# {version}\n".encode()
            self._wheel("gamma", version, {"gamma.py": module}, {"gamma-run": script})

    def _compile(self, source: str, to: str, *options: str, soname: str = "", shared: bool = True) -> str:
        os.makedirs(os.path.dirname(to), exist_ok=True)
        kind = ["-shared", "-fPIC"] if shared else []
        named = [f"-Wl,-soname,{soname}"] if soname else []
        path = os.path.join(self.root, "src", source)
        subprocess.run(["gcc", "-o", to, path, *kind, *named, *options], check=True, capture_output=True)
        return to

    def _wheel(
        self,
        name: str,
        version: str,
        files: Contents,
        scripts: Contents,
    ) -> None:
        info = f"{name}-{version}.dist-info"
        contents = {path: _read(data) for path, data in files.items()}
        programs = {script: _read(data) for script, data in scripts.items()}
        members = dict(contents)
        members.update({f"{name}-{version}.data/scripts/{script}": data for script, data in programs.items()})
        members[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
        members[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-any\n"
        rows = [f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in members.items()]
        members[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
        path = os.path.join(self.root, f"{name}-{version}-py3-none-any.whl")
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in members.items():
                entry = zipfile.ZipInfo(member, (2024, 1, 1, 0, 0, 0))
                entry.external_attr = (0o100755 if "/scripts/" in member else 0o100644) << 16
                archive.writestr(entry, data)
        contents.update({f"../../../bin/{script}": data for script, data in programs.items()})
        self.wheels[name, version] = Wheel(name, version, path, contents)


def _read(data: bytes | str) -> bytes:
    if isinstance(data, bytes):
        return data
    with open(data, "rb") as file:
        return file.read()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
