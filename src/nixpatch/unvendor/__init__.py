"""Un-vendoring: the library of the store in the place of the copy that a wheel brings (auditwheel grafts them)."""
