"""Operations: what each command does, from reading to writing. Start with ``patch``, a whole run on one page.

``plan`` decides, ``apply`` writes (``edit_jobs`` one file, ``record_update`` RECORD and provenance,
``resume`` finds what a killed run did not record), ``restore`` reverts, ``gc_roots`` keeps store paths alive.
``verify`` runs the checks of ``verify_provenance``, ``verify_record``, ``verify_transitive`` and
``verify_load``. The other modules have the name of what they find or change: ``trace``, ``missing``,
``diff``, ``lockfile``, ``manylinux``, ``dlopen_names``, ``installer_changes``, ``elf_edit``.
"""
