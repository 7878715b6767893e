"""A dist of the small world that opens libraries by name: from C, by ctypes, by find_library."""

from __future__ import annotations

import os

from support.world import World, record_row, shared

SOURCES = {
    "by_ctypes.py": "import ctypes\n\nctypes.CDLL('libanswer.so.1')\n",
    "by_find.py": "from ctypes.util import find_library\n\nNAME = find_library('answer')\n",
    "optional.py": "import ctypes\n\nfor n in ('libsodium.so.26', 'libsodium.so.23'):\n    ctypes.CDLL(n)\n",
    "computed.py": "import ctypes\n\ndef load(name):\n    return ctypes.CDLL(input())\n",
}
"""of the package, by file name"""


def add_opener(world: World) -> str:
    """Install the dist ``opener`` 2.0 into the world; return its package directory."""
    package = os.path.join(world.site, "opener")
    info = os.path.join(world.site, "opener-2.0.dist-info")
    os.makedirs(package)
    os.makedirs(info)
    texts = {os.path.join(package, name): text for name, text in SOURCES.items()}
    texts[os.path.join(package, "__init__.py")] = ""
    texts[os.path.join(info, "METADATA")] = "Metadata-Version: 2.1\nName: opener\nVersion: 2.0\n"
    script = os.path.join(world.venv, "bin", "opener-run")
    texts[script] = "#!/bin/bash\necho run\n"
    for path, text in texts.items():
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    os.chmod(script, 0o755)
    natives = [
        shared("opens.c", os.path.join(package, "_opens.so")),
        shared("opens.c", os.path.join(package, "_lacks.so"), '-DNAME="libykpers-1.so.1"'),
    ]
    rows = [record_row(path, world.site) for path in (*texts, *natives)]
    with open(os.path.join(info, "RECORD"), "w", encoding="utf-8") as file:
        file.write("".join(f"{row}\n" for row in (*rows, "opener-2.0.dist-info/RECORD,,")))
    bash = os.path.join(world.store, "1123456789abcdfghijklmnpqrsvwxyz-bash-5.2", "bin", "bash")
    os.makedirs(os.path.dirname(bash), exist_ok=True)
    os.symlink("/bin/bash", bash)
    return package
