"""What nixpatch does, each story a page: glue between what is read, what is decided and what is written.

``plan`` decides over a tree, ``work`` edits one file, ``apply`` carries a plan out and ``recording`` writes
down what was done. ``verify``, ``transitive`` and ``loading`` hold a tree against its promise: statically,
behind it, for real. The others stand beside these: ``restore``, ``rooting`` (garbage-collector roots),
``locking``, ``installing`` (what an installer changed), ``single`` (one file), ``demo``.
"""
