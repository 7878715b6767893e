"""Un-vendoring: the library of the store replaces the copy that auditwheel put into a wheel."""
