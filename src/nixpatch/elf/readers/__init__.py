"""Independent readers of ELF: nixpatch's own, pyelftools, LIEF.

Each yields an :class:`~nixpatch.model.elf_description.ElfDescription`. pyelftools and LIEF run in a child
process with limits.
"""
