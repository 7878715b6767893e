"""Take walks by hand: ``cd tests; python -m walk FIRST-SEED COUNT [STEPS]``."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import traceback

from walk.shop import Shop
from walk.walker import walk


def main(first: int, count: int, steps: int) -> int:
    """Print the walks that broke a promise; return their number."""
    root = os.path.realpath(tempfile.mkdtemp(prefix="walk-"))
    shop = Shop(root)
    shop.build()
    os.environ.update(NIX_STORE_DIR=shop.store, XDG_CACHE_HOME=os.path.join(root, "cache"), COLUMNS="200")
    broken = 0
    for seed in range(first, first + count):
        place = os.path.join(root, str(seed))
        try:
            walk(shop, place, seed, steps)
        except AssertionError as error:
            broken += 1
            print(error, flush=True)
        except Exception:  # noqa: BLE001 - of the walker; the next walk begins
            broken += 1
            traceback.print_exc()
        else:
            shutil.rmtree(place)
    print(f"{count} walks of {steps} steps: {broken} broke a promise")
    return broken


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]), int(sys.argv[2]), int((sys.argv[3:] or ["25"])[0]))))
