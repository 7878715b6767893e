"""The decisions: pure functions over what was read from the tree, the target and the store.

``file_plan`` plans one file. It takes its answers from ``precedence``, the order in which a need is met, and
its new search path from ``search_path``. ``context`` holds the inputs of both, ``provider_choice`` chooses
the one provider of a soname, ``dist_graph`` says which dists lend libraries to which, and ``ld_so`` computes
the search of the loader, for one file or a whole process. Apart from planning, ``manylinux`` checks the
promises of a target, ``dlopen_calls`` finds libraries that Python code opens by name, and ``diff`` compares
plans.
"""
