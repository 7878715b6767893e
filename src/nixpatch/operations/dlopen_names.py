"""Find the libraries that Python code opens by bare name, and make ld.so find them.

LD_LIBRARY_PATH comes before RUNPATH in every process that inherits it (ld.so(8)): a whole lib directory in
it, such as gcc's, would replace libstdc++ for all of them. So it names a directory of links to the opened
libraries, to those in the directories that the user named, and to nothing else.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from nixpatch.errors import MachineError
from nixpatch.fs import make_directory, remove, remove_directory, replace_link
from nixpatch.installed.dist_records import TreeRecords
from nixpatch.installed.scan import python_sources, scan
from nixpatch.model import OpenedName, Opener, Target, Tree
from nixpatch.model.dlopen_names import DlopenName, DlopenNames, DlopenStatus
from nixpatch.model.installed import ENV_DIRECTORY
from nixpatch.operations.opened_names import CodeReader
from nixpatch.operations.plan import Reader, sources_of, target_for
from nixpatch.operations.request import PatchRequest
from nixpatch.resolve.provider_choice import choose_provider
from nixpatch.resolve.python_names import WORDS, opened_names
from nixpatch.store import gc_roots
from nixpatch.store.cache import Cache
from nixpatch.store.catalog import packaged
from nixpatch.store.index import ProviderIndex, open_index
from nixpatch.version import __version__


def find_dlopen_names(request: PatchRequest) -> DlopenNames:
    """Find the call sites of a tree and the library for each. Runs and writes nothing.

    Raises:
        RequestError: the path, an option or the target is wrong.
        MachineError: a locked store path is gone or changed, or Nix failed.

    """
    tree, reader = scan(request.path), Reader()
    target = target_for(request, tree, reader)
    bundled = {os.path.basename(file.path) for file in tree.files}
    sites_by_name: dict[tuple[str, bool], list[OpenedName]] = {}
    computed: list[OpenedName] = []
    cache = Cache(request.cache, __version__)
    with open_index(request.store, target, reader, sources_of(request, target), cache=cache) as index:
        code = CodeReader(tree, request.policy, cache, TreeRecords())
        names = code.code_names({}, target.machine).python
        for site in _sites(tree, names):
            if "*" in site.name:
                computed.append(site)
            elif "/" not in site.name:
                sites_by_name.setdefault((site.name, site.opener is Opener.FIND_LIBRARY), []).append(site)
        resolve = _resolver(request, target, index, reader, bundled)
        opened = [resolve(*key, tuple(sites)) for key, sites in sorted(sites_by_name.items())]
    return DlopenNames(
        tree,
        request.policy.driver_directory,
        tuple(name for name in opened if name.status is not DlopenStatus.MISSING or _may_exist(name)),
        tuple(computed),
        dict(_libraries_in(request.libs)),
    )


def _may_exist(name: DlopenName) -> bool:
    """Whether to report a name that nothing serves: code asks for names of other systems, too."""
    may_exist = packaged().has_library(f"lib{name.name}") if name.finds else ".so" in name.name
    return may_exist and any(site.traced for site in name.sites)


def _sites(tree: Tree, names: Mapping[str, Sequence[OpenedName]]) -> Iterator[OpenedName]:
    """Yield what the sources of a tree open, those that no dist owns as well, with paths below its root.

    Args:
        tree: the tree.
        names: what the sources of each dist open, by ``.dist-info``.

    """
    for dist in tree.dists:
        for name in names.get(dist.info, ()):
            yield replace(name, path=os.path.relpath(os.path.join(dist.site, name.path), tree.root))
    owned = {path for dist in tree.dists for path in dist.files if path.endswith(".py")}
    directories: dict[str, dict[str, bytes]] = {}
    for path, source in python_sources(tree.root):
        if path not in owned and WORDS.search(source):
            sources = directories.setdefault(os.path.dirname(path), {})
            sources[os.path.relpath(path, tree.root)] = source
    for sources in directories.values():
        yield from opened_names(sources)


def _libraries_in(directories: Iterable[str]) -> Iterator[tuple[str, str]]:
    for directory in directories:
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(directory)):
                if ".so" in name:
                    yield name, os.path.join(os.path.abspath(directory), name)


def _resolver(
    request: PatchRequest, target: Target, index: ProviderIndex, reader: Reader, bundled: set[str]
) -> Callable[[str, bool, tuple[OpenedName, ...]], DlopenName]:
    policy, root = request.policy, os.path.realpath(request.path)
    libc = {name for name in os.listdir(target.libc_dir) if policy.libc_of(name) is target.libc}

    def serves(name: str, finds: bool, files: set[str]) -> bool:
        return finds and any(f"{file}.".startswith(f"lib{name}.so.") for file in files)

    def resolve(name: str, finds: bool, sites: tuple[OpenedName, ...]) -> DlopenName:
        if policy.libc_of(name) is not None or serves(name, finds, libc):
            return DlopenName(name, finds, sites, DlopenStatus.LIBC)
        if name in bundled or serves(name, finds, bundled):
            return DlopenName(name, finds, sites, DlopenStatus.TREE)
        if policy.is_driver(name) or (finds and policy.is_driver(f"lib{name}.so.1")):
            return DlopenName(name, finds, sites, DlopenStatus.DRIVER)
        for soname in index.versions(f"lib{name}.so") if finds else (name,):
            provider = choose_provider(index.providers(soname), frozenset(), target).provider
            # find_library returns the DT_SONAME, which the code then opens.
            if provider is not None and (not finds or provider.soname == soname):
                facts = reader.facts(provider.real)
                siblings = facts is not None and "ORIGIN" in (facts.current.search_path or "")
                return DlopenName(name, finds, sites, DlopenStatus.SERVED, provider, siblings)
        ignored = all(policy.ignored(os.path.join(root, site.path), name) for site in sites)
        return DlopenName(name, finds, sites, DlopenStatus.IGNORED if ignored else DlopenStatus.MISSING)

    return resolve


def links(names: DlopenNames) -> dict[str, str]:
    """Return the links of the directory: name -> library."""
    result = dict(names.given)
    for name in names.opened:
        if name.provider is not None and not name.needs_siblings:
            path = os.path.join(name.provider.directory, name.provider.name)
            result[name.provider.name] = path
            if name.finds:  # find_library asks the linker, which looks for this name
                result[f"lib{name.name}.so"] = path
    return result


def ld_library_path(names: DlopenNames) -> str:
    """Return the value of LD_LIBRARY_PATH; "" where no library needs it."""
    entries = [os.path.join(names.tree.prefix, ENV_DIRECTORY)] if links(names) else []
    entries += [name.provider.directory for name in names.opened if name.provider and name.needs_siblings]
    entries += [names.driver_directory for name in names.opened if name.status is DlopenStatus.DRIVER]
    return ":".join(dict.fromkeys(entries))


def write_links(names: DlopenNames, request: PatchRequest) -> None:
    """Make the directory hold these links and no others, and add garbage-collector roots for them.

    Raises:
        MachineError: the directory cannot be written, or Nix refused a root.

    """
    wanted, directory = links(names), os.path.join(names.tree.prefix, ENV_DIRECTORY)
    files = [*names.given.values(), *(name.provider.real for name in names.opened if name.provider)]
    used = {request.store.store_path_of(file) for file in files}
    if gc_roots.wanted(request.store, names.tree.prefix):
        gc_roots.add(request.store, names.tree.prefix, [path for path in used if path is not None])
    try:
        if wanted:
            make_directory(directory)
        for name in os.listdir(directory) if os.path.isdir(directory) else []:
            # nixpatch makes only links here: other files belong to the user.
            if name not in wanted and os.path.islink(os.path.join(directory, name)):
                remove(os.path.join(directory, name))
        for name, target in wanted.items():
            link = os.path.join(directory, name)
            if not (os.path.islink(link) and os.readlink(link) == target):
                replace_link(link, target)
        if not wanted:
            remove_directory(directory)
    except OSError as error:
        raise MachineError(f"{directory}: cannot be written: {error.strerror}") from error
