"""The second writer: LIEF lays a file out anew, in a child process, under checks of its own."""
