"""Faults strike at the calls that the preload sees: the kernel, asked by strace, knows of no others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest

from faults.stories import Bench, Story
from support.injector import Kind

pytestmark = [pytest.mark.gcc, pytest.mark.faults]

# What changes no file. All else that concerns files or descriptors has to be known to the preload.
HARMLESS = {
    "access", "chdir", "close", "close_range", "dup", "dup2", "dup3", "epoll_create1", "epoll_ctl",
    "epoll_pwait", "epoll_wait", "eventfd2", "execve", "faccessat", "faccessat2", "fadvise64", "fchdir",
    "fcntl", "fgetxattr", "flistxattr", "fstat", "fstatfs", "getcwd", "getdents64", "getxattr", "lseek",
    "lstat", "newfstatat", "pipe", "pipe2", "poll", "ppoll", "pread64", "preadv", "preadv2", "pselect6",
    "read", "readlink", "readlinkat", "readv", "select", "stat", "statfs", "statx",
}  # fmt: skip
_CALL = re.compile(r"\d+ +(\w+)\((.*)")
_DESCRIPTOR = re.compile(r"\d+<([^>]*)>")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def _family(call: str) -> str:
    """Return one name for a system call and for libc's functions that end in it."""
    call = call.removesuffix("64")
    if call in {"futimens", "utimensat"}:
        return "utime"
    return {"creat": "open", "rmdir": "unlink", "renameat2": "rename"}.get(call, call.removesuffix("at"))


def _changes(trace: str) -> Iterator[tuple[str, str]]:
    """Yield what a trace has that may change a file: the call and the path."""
    with open(trace, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            found = _CALL.match(line)
            if found is None:  # a signal, an end, the second half of a call
                continue
            call, rest = found.groups()
            descriptors, quoted = _DESCRIPTOR.findall(rest), _QUOTED.findall(rest)
            if call in HARMLESS:
                continue
            if call == "mmap" and not ("MAP_SHARED" in rest and "PROT_WRITE" in rest):
                continue
            if call == "ioctl" and "FICLONE" not in rest and "FIDEDUPE" not in rest:
                continue
            if call in {"open", "openat", "openat2"} and not re.search("O_(CREAT|WRONLY|RDWR|TRUNC)", rest):
                continue
            if call == "copy_file_range":
                yield call, descriptors[1]
            elif _family(call) in {"rename", "link", "symlink"}:
                yield _family(call), quoted[-1]
            elif quoted and not call.startswith(("write", "pwrite", "fsetxattr")):
                yield _family(call), quoted[0]
            else:
                yield _family(call), descriptors[0]


@pytest.mark.parametrize("story", list(Story))
def test_no_call_that_changes_a_file_escapes(bench: Bench, story: Story) -> None:
    if shutil.which("strace") is None:
        pytest.skip("not installed: strace")
    if subprocess.run(["strace", "-o", os.devnull, "true"], check=False, capture_output=True).returncode:
        pytest.skip("nobody may trace here (ptrace(2))")
    bench.begin(story)
    bench.forget_cache()
    trace = os.path.join(bench.world.root, "trace")
    arguments = bench.arguments(story, *(["--jobs", "2"] if story is Story.PATCH else []))

    ended = bench.injector.fresh_process(
        arguments, "strace", "-f", "-y", "-s", "4096", "-e", "trace=%file,%desc", "-o", trace
    )

    assert ended.code == 0, ended.said
    seen = Counter((_family(site.call), site.path) for site in ended.sites if site.kind is Kind.CHANGE)
    made = Counter(
        (call, path)
        for call, path in _changes(trace)
        if path.startswith(bench.world.root)
        or not path.startswith(("/dev/", "pipe:", "socket:", "anon_inode:"))
        if path not in {bench.injector.log, bench.injector.plan}
    )
    assert sum(made.values()) >= 3
    assert made - seen == Counter()
