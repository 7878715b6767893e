"""The environment that one file is installed in, found by the directories above it."""

from __future__ import annotations

import os

from nixpatch.installed import python_layout, pyvenv
from nixpatch.model import Tree, TreeKind


def enclosing(path: str) -> Tree | None:
    """Return the venv, prefix or site-packages around a file, without its files and dists; None outside.

    It is what ``find_target`` needs to name the Python that will load the file.
    """
    directory = os.path.dirname(os.path.realpath(path))
    site: str | None = None
    while directory != "/":
        if pyvenv.read_config(directory) is not None:
            return _tree(directory, directory, TreeKind.VENV, path)
        if site is None and (
            python_layout.prefix_of_site(directory) or python_layout.has_dist_info(directory)
        ):
            site = directory
        directory = os.path.dirname(directory)
    if site is None:
        return None
    return _tree(site, python_layout.prefix_of_site(site) or site, TreeKind.SITE_PACKAGES, path)


def _tree(root: str, prefix: str, kind: TreeKind, path: str) -> Tree:
    version = python_layout.version_in_path(os.path.dirname(os.path.realpath(path)))
    return Tree(root, prefix, kind, (), python_version=version or python_layout.only_version(prefix))
