"""Debian packages: download them and read them, without installing anything."""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Version:
    """The parts of a Debian version that make sense in the name of a Nix package."""

    upstream: str
    revision: str


def fetch(names: Iterable[str], directory: str) -> dict[str, str]:
    """File name of each package in `directory`; what is not there yet is downloaded with apt-get."""
    os.makedirs(directory, exist_ok=True)
    missing = sorted(set(names) - set(_present(directory)))
    if missing:
        # Not straight into the directory: an interrupted download must not pass for a package.
        with tempfile.TemporaryDirectory(dir=directory, prefix="partial-") as partial:
            # _apt cannot write below root's home; root may download.
            command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]
            done = subprocess.run(
                [*command, "download", *missing], cwd=partial, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"apt-get download failed (is apt-get update due?):\n{done.stderr}")
            for file in os.listdir(partial):
                shutil.move(os.path.join(partial, file), os.path.join(directory, file))
    present = _present(directory)
    return {name: present[name] for name in names}


def _present(directory: str) -> dict[str, str]:
    return {file.partition("_")[0]: file for file in os.listdir(directory) if file.endswith(".deb")}


def version(file: str) -> Version:
    """The version that apt-get put into the file name: name_[epoch%3a]upstream[-revision]_arch.deb."""
    full = file.split("_")[1].rpartition("%3a")[2]
    upstream, _, revision = full.rpartition("-")
    number = re.match(r"\d+", revision)
    # Debian's marks of repacked or reverted sources are not part of the version.
    plain = re.sub(r"([+~]|\.dfsg|\.ds).*", "", upstream or full)
    return Version(plain, number.group() if number else "0")


def members(path: str) -> Iterator[tuple[str, bytes]]:
    """Path without leading `./`, and contents, of the regular files of a package."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", path], stdout=subprocess.PIPE) as dpkg:
        with tarfile.open(fileobj=dpkg.stdout, mode="r|") as archive:
            for member in archive:
                if member.isreg() and (stream := archive.extractfile(member)):
                    yield member.name.removeprefix("./"), stream.read()
        if dpkg.stdout:
            dpkg.stdout.read()  # the padding behind the archive: dpkg-deb must not die of a closed pipe
    if dpkg.returncode:
        raise RuntimeError(f"dpkg-deb cannot read {path}")


def unpack(path: str, directory: str) -> None:
    """Unpack the files of a package."""
    subprocess.run(["dpkg-deb", "-x", path, directory], check=True)
