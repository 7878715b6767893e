"""The decisions: pure functions from what was read to what shall be done.

``policy`` holds the tables, ``precedence`` the order in which a need is met, ``choose`` the one provider of
a soname, ``search_path`` the algebra of entries, ``loader`` what ld.so opens for one file and ``simulate``
for a whole process, ``requirements`` which dist may lend to which; ``files`` puts them
together for every file of a tree.
"""
