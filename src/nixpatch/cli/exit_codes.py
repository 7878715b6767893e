"""What a run comes to, for the shell."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit codes of every command."""

    SATISFIED = 0
    REMAINS = 1
    """something is missing, failed or found wrong; with ``--check`` also: changes are pending"""
    REQUEST = 2
    """what was asked for is wrong"""
    MACHINE = 3
    """what the machine offers is not enough"""
    INTERRUPTED = 130
    """Ctrl-C, after the file in hand was whole"""
