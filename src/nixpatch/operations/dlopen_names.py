"""Find the libraries that Python code opens by bare name, and make ld.so find them.

LD_LIBRARY_PATH comes before RUNPATH in every process that inherits it (ld.so(8)): a whole lib directory in
it, such as gcc's, would replace libstdc++ for all of them. So it names a directory of links to the opened
libraries and to nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from nixpatch.errors import MachineError
from nixpatch.fs import make_directory, remove, remove_directory, replace_link
from nixpatch.installed import find_target, scan
from nixpatch.installed.scan import python_sources
from nixpatch.model import Target
from nixpatch.model.dlopen_names import CallSite, DlopenName, DlopenNames, DlopenStatus
from nixpatch.operations.plan import PatchRequest, Reader, sources_of
from nixpatch.resolve.dlopen_calls import call_sites
from nixpatch.resolve.provider_choice import choose_provider
from nixpatch.store import ProviderIndex, gc_roots, open_index
from nixpatch.version import __version__

DIRECTORY = ".nixpatch-env"
"""name of the directory of links, in the prefix of the tree"""


def find_dlopen_names(request: PatchRequest) -> DlopenNames:
    """Find the call sites of a tree and the library for each. Runs and writes nothing.

    Raises:
        RequestError: the path, an option or the target is wrong.
        MachineError: a locked store path is gone or changed, or Nix failed.

    """
    tree, reader = scan(request.path), Reader()
    target = find_target(tree, request.python, request.path_env, reader)
    sites_by_name: dict[tuple[str, bool], list[CallSite]] = {}
    for path, source in python_sources(tree.root):
        for site in call_sites(source, path):
            sites_by_name.setdefault((site.name, site.finds), []).append(site)
    bundled = {os.path.basename(file.path) for file in tree.files}
    with open_index(
        request.store, target, reader, sources_of(request, target), cache=request.cache, edition=__version__
    ) as index:
        resolve = _resolver(request, target, index, reader, bundled)
        names = tuple(resolve(name, tuple(sites)) for (name, _), sites in sorted(sites_by_name.items()))
    return DlopenNames(tree, request.policy.driver_directory, names)


def _resolver(
    request: PatchRequest, target: Target, index: ProviderIndex, reader: Reader, bundled: set[str]
) -> Callable[[str, tuple[CallSite, ...]], DlopenName]:
    policy = request.policy
    libc = {name for name in os.listdir(target.libc_dir) if policy.libc_of(name) is target.libc}

    def serves(name: str, finds: bool, files: set[str]) -> bool:
        return finds and any(file.startswith(f"lib{name}.so") for file in files)

    def resolve(name: str, sites: tuple[CallSite, ...]) -> DlopenName:
        finds = sites[0].finds
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
        ignored = all(policy.ignored(site.path, name) for site in sites)
        return DlopenName(name, finds, sites, DlopenStatus.IGNORED if ignored else DlopenStatus.MISSING)

    return resolve


def links(names: DlopenNames) -> dict[str, str]:
    """Return the links of the directory: name -> library."""
    result: dict[str, str] = {}
    for name in names.opened:
        if name.provider is not None and not name.needs_siblings:
            path = os.path.join(name.provider.directory, name.provider.name)
            result[name.provider.name] = path
            if name.finds:  # find_library asks the linker, which looks for this name
                result[f"lib{name.name}.so"] = path
    return result


def ld_library_path(names: DlopenNames) -> str:
    """Return the value of LD_LIBRARY_PATH; "" where no library needs it."""
    entries = [os.path.join(names.tree.prefix, DIRECTORY)] if links(names) else []
    entries += [name.provider.directory for name in names.opened if name.provider and name.needs_siblings]
    entries += [names.driver_directory for name in names.opened if name.status is DlopenStatus.DRIVER]
    return ":".join(dict.fromkeys(entries))


def write_links(names: DlopenNames, request: PatchRequest) -> None:
    """Make the directory hold these links and no others, and add garbage-collector roots for them.

    Raises:
        MachineError: the directory cannot be written, or Nix refused a root.

    """
    wanted, directory = links(names), os.path.join(names.tree.prefix, DIRECTORY)
    used = {request.store.store_path_of(name.provider.real) for name in names.opened if name.provider} - {
        None
    }
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
