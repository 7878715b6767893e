"""Inputs that nobody would make: targets, seeds and mutation for the fuzzer, and what it found."""
