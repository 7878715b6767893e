"""Bounds: no input takes more memory or time than its size is worth, and none leads out of the tree."""
