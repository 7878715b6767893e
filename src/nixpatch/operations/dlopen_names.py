"""What the Python code of a tree opens by bare name, who serves it, and how ld.so is made to find it.

The way is a directory of links to those libraries alone: LD_LIBRARY_PATH goes before RUNPATH in every process
that inherits it: to name a whole lib directory, such as that of gcc, would replace libstdc++ for all of them.
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable
from dataclasses import dataclass

from nixpatch import __version__
from nixpatch.errors import MachineError
from nixpatch.fs import TEMP_PREFIX, TEMP_SUFFIX
from nixpatch.installed import find_target, scan
from nixpatch.installed.python_sources import sources
from nixpatch.model import Provider, Target, Tree
from nixpatch.operations.plan import PatchRequest, Reader, sources_of
from nixpatch.resolve.dlopen_calls import CallSite, call_sites
from nixpatch.resolve.provider_choice import choose_provider
from nixpatch.store import ProviderIndex, gc_roots, open_index

DIRECTORY = ".nixpatch-env"
"""name of the directory of links, in the prefix of the tree"""


class Fate(enum.Enum):
    """What becomes of a name. The value is the text people read."""

    SERVED = "served"
    TREE = "the tree brings it"
    LIBC = "libc"
    DRIVER = "driver"
    IGNORED = "ignored"
    MISSING = "nothing provides it"


@dataclass(frozen=True, slots=True)
class Opened:
    """One name that code opens."""

    name: str
    finds: bool
    """it is a name for ``find_library``"""
    sites: tuple[CallSite, ...]
    fate: Fate
    provider: Provider | None = None
    beside: bool = False
    """the library looks for others by $ORIGIN, so that a link to it elsewhere would not do"""


@dataclass(frozen=True, slots=True)
class Opening:
    """All that a tree opens."""

    tree: Tree
    driver_directory: str
    opened: tuple[Opened, ...]


def look(request: PatchRequest) -> Opening:
    """Find the call sites of a tree and decide who serves each. Nothing is run or written.

    Raises:
        RequestError: the path, an option or the target is wrong.
        MachineError: what is locked is gone or changed, or Nix failed.

    """
    tree, reader = scan(request.path), Reader()
    target = find_target(tree, request.python, request.path_env, reader)
    by_name: dict[tuple[str, bool], list[CallSite]] = {}
    for path, source in sources(tree.root):
        for site in call_sites(source, path):
            by_name.setdefault((site.name, site.finds), []).append(site)
    own = {os.path.basename(file.path) for file in tree.files}
    with open_index(
        request.store, target, reader, sources_of(request, target), cache=request.cache, edition=__version__
    ) as index:
        decide = _decider(request, target, index, reader, own)
        opened = tuple(decide(name, tuple(sites)) for (name, _), sites in sorted(by_name.items()))
    return Opening(tree, request.policy.driver_directory, opened)


def _decider(
    request: PatchRequest, target: Target, index: ProviderIndex, reader: Reader, own: set[str]
) -> Callable[[str, tuple[CallSite, ...]], Opened]:
    policy = request.policy
    libc = [name for name in os.listdir(target.libc_dir) if policy.libc_of(name) is target.libc]

    def decide(name: str, sites: tuple[CallSite, ...]) -> Opened:
        finds = sites[0].finds
        candidates = index.versions(f"lib{name}.so") if finds else (name,)
        if (finds and any(one.startswith(f"lib{name}.so") for one in libc)) or policy.libc_of(
            name
        ) is not None:
            return Opened(name, finds, sites, Fate.LIBC)
        if name in own or (finds and any(one.startswith(f"lib{name}.so") for one in own)):
            return Opened(name, finds, sites, Fate.TREE)
        if policy.is_driver(name) or (finds and policy.is_driver(f"lib{name}.so.1")):
            return Opened(name, finds, sites, Fate.DRIVER)
        for soname in candidates:
            provider = choose_provider(index.providers(soname), frozenset(), target).provider
            # find_library gives back the DT_SONAME: that is the name that is opened then.
            if provider is not None and (not finds or provider.soname == soname):
                facts = reader.facts(provider.real)
                beside = facts is not None and "ORIGIN" in (facts.current.search_path or "")
                return Opened(name, finds, sites, Fate.SERVED, provider, beside)
        ignored = all(policy.ignored(site.path, name) for site in sites)
        return Opened(name, finds, sites, Fate.IGNORED if ignored else Fate.MISSING)

    return decide


def links(opening: Opening) -> dict[str, str]:
    """Return the links that the directory holds: name -> library. Pure."""
    found: dict[str, str] = {}
    for one in opening.opened:
        if one.provider is not None and not one.beside:
            path = os.path.join(one.provider.directory, one.provider.name)
            found[one.provider.name] = path
            if one.finds:  # what the linker looks for, which find_library asks
                found[f"lib{one.name}.so"] = path
    return found


def search_path(opening: Opening) -> str:
    """Return the value of LD_LIBRARY_PATH; "" where nothing is needed. Pure."""
    entries = [os.path.join(opening.tree.prefix, DIRECTORY)] if links(opening) else []
    entries += [one.provider.directory for one in opening.opened if one.provider is not None and one.beside]
    entries += [opening.driver_directory for one in opening.opened if one.fate is Fate.DRIVER]
    return ":".join(dict.fromkeys(entries))


def prepare(opening: Opening, request: PatchRequest) -> None:
    """Make the directory of links hold what is needed and nothing else, and root what is behind them.

    Raises:
        MachineError: it cannot be written, or Nix refused.

    """
    wanted, directory = links(opening), os.path.join(opening.tree.prefix, DIRECTORY)
    used = {request.store.store_path_of(one.provider.real) for one in opening.opened if one.provider} - {None}
    if gc_roots.wanted(request.store, opening.tree.prefix):
        gc_roots.add(request.store, opening.tree.prefix, [path for path in used if path is not None])
    try:
        if wanted:
            os.makedirs(directory, exist_ok=True)
        present = os.listdir(directory) if os.path.isdir(directory) else []
        for name in present:
            # What is no link is not ours.
            if name not in wanted and os.path.islink(os.path.join(directory, name)):
                os.unlink(os.path.join(directory, name))
        for name, target in wanted.items():
            link = os.path.join(directory, name)
            if not (os.path.islink(link) and os.readlink(link) == target):
                temp = os.path.join(directory, f"{TEMP_PREFIX}{os.getpid()}-{name}{TEMP_SUFFIX}")
                os.symlink(target, temp)
                os.replace(temp, link)
        if not wanted:
            with contextlib.suppress(FileNotFoundError, OSError):
                os.rmdir(directory)
    except OSError as error:
        raise MachineError(f"{directory}: cannot be written: {error.strerror}") from error
