"""The second writer: LIEF lays a file out anew, in a child process; nixpatch checks the result."""
