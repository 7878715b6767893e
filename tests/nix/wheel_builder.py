"""The builder of wheel.nix, run by the store's Python: unpack the wheel, run nixpatch on $out."""

import os
import sys
import zipfile


def main() -> None:
    """Install and patch."""
    sys.dont_write_bytecode = True
    out = os.environ["out"]
    site = os.path.join(out, "lib", "python3.11", "site-packages")
    with zipfile.ZipFile(os.environ["wheel"]) as wheel:
        wheel.extractall(site)
    sys.path.insert(0, os.environ["tool"])
    from nixpatch.cli import run

    arguments = ["patch", out, "--python", os.environ["python"]]
    for path in os.environ["inputs"].split():
        arguments += ["--closure", path]
    sys.stdout = sys.stderr
    sys.exit(run(arguments))


main()
