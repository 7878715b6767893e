"""What nixpatch does, each story a page: glue between what is read, what is decided and what is written.

``plan`` decides over a tree, ``work`` edits one file, ``apply`` carries a plan out, ``recording`` writes down
what was done where ``ledger`` says, ``unfinished`` finds what a killed run did not write down. ``verify``,
``transitive`` and ``loading`` hold a tree against its promise: statically, behind it, for real.

The others stand beside these: ``restore``, ``unvendor`` and ``grafting`` (the store's library instead of a
wheel's copy), ``rooting`` (garbage-collector roots), ``locking``, ``installing`` (what an installer changed),
``tracing`` (who needs what), ``comparing``, ``promising`` (manylinux), ``opening`` (what Python code opens by
name), ``single`` (one file), ``demo``.
"""
