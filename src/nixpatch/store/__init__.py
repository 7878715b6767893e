"""The Nix store and the other sources of libraries.

``find_store`` returns the store to work with. ``open_index`` turns the sources (``--lib``, ``--closure``,
the closure of the target Python, ``--nixpkgs``, the whole local store) into a ``ProviderIndex``, which
returns the libraries of a file name, best first. It lists the names of the whole store but reads the headers
only of files that are asked for, and a cache keyed on the state of every file and directory makes the second
run quick. ``lockfile`` and ``catalog`` hold their formats, ``nixpkgs`` builds, ``gc_roots`` protects store
paths, and ``assemble`` makes a small store from the host's own libraries. The reader of ELF files is a
parameter: this package does not depend on ``elf``.
"""
