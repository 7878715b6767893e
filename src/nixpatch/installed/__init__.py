"""Installed trees: files, dists with RECORD and provenance, and the Python that loads them.

``scan`` turns a path into a ``Tree``, ``find_target`` a tree into a ``Target``. ``dist_records`` reads and
writes RECORD and ``nixpatch.json``, ``manylinux_module`` writes ``_manylinux.py``; everything else only
reads. Nothing that is read is run. This package knows neither ELF nor Nix: a function that needs ELF headers
is given a reader.
"""
