"""The version of nixpatch: a leaf, so that whoever writes it down need not import the package."""

__version__ = "0.1.0"
