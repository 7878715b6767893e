"""Every kind of installer, the real ones: fails before, works after one command, verifies, and is restored.

The wheels are made here and installed without an index; ``pypi`` marks the installers that come from there.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from uv import find_uv_bin

from nixpatch.cli import run
from support.relocated import relocate
from support.shop import Shop, make_wheel

pytestmark = pytest.mark.gcc

ASK = "import ctypes, one; print('answer', ctypes.CDLL(one.__path__[0] + '/native/_ext.so').ask())"


@dataclass(frozen=True)
class Kind:
    """An installer, and what one types."""

    name: str
    command: str
    """with ``{wheels}``, ``{wheel}`` and ``{python}``"""
    environment: str
    """glob of what it makes; relative to the project, ``~`` is the home directory"""
    files: dict[str, str] = field(default_factory=dict)
    """of the project, with the same words in braces"""
    tools: str = ""
    """from PyPI"""
    needs: str = ""
    """wheels of build backends from PyPI"""
    environ: dict[str, str] = field(default_factory=dict)
    first: str = ""
    """a shell command before"""
    is_venv: bool = True

    @property
    def plain(self) -> list[str]:
        """The command without nixpatch."""
        words = self.command.split()
        if words[:2] == ["wrap", "--"]:
            return words[2:]
        python = ".venv/bin/python" if self.is_venv else "{python}"
        return [python, "-m", *words] if words[0] == "pip" else words


PROJECT = '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["one"]\n'
SCRIPT = f'# /// script\n# dependencies = ["one"]\n# ///\n{ASK}\n'
POETRY = (
    '[tool.poetry]\npackage-mode = false\n[tool.poetry.dependencies]\npython = ">=3.11"\n'
    'one = {path = "{wheel}"}\n'
)
PDM = PROJECT + (
    '[tool.pdm]\ndistribution = false\n[[tool.pdm.source]]\nname = "pypi"\ntype = "find_links"\n'
    'url = "file://{wheels}"\n'
)
PDM_SCRIPT = SCRIPT.replace(
    "# ///\n",
    '# [[tool.pdm.source]]\n# name = "pypi"\n# type = "find_links"\n# url = "file://{wheels}"\n# ///\n',
)
HATCH = (
    PROJECT.replace('["one"]', "[]")
    + '[tool.hatch.envs.default]\nskip-install = true\ndependencies = ["one"]\n'
)
HATCH_TEST = (
    PROJECT.replace('["one"]', "[]")
    + '[tool.hatch.envs.hatch-test]\nskip-install = true\ndependencies = ["one", "pytest"]\n'
)
TOX = "[tox]\nenvlist = a\n[testenv]\nskip_install = true\ndeps = one\ncommands = python ask.py\n"
NOX = (
    "import nox\n\n@nox.session\ndef tests(session):\n    session.install('one')\n"
    f"    session.run('python', '-c', {ASK!r})\n"
)
HOOKS = """\
repos:
  - repo: local
    hooks:
      - id: ask
        name: ask
        entry: python ask.py
        language: python
        additional_dependencies: [one]
        pass_filenames: false
        always_run: true
"""
VIRTUALENV = "virtualenv -q v && v/bin/pip install -q one"
POETRY_VENVS = "~/.cache/pypoetry/virtualenvs/*"
# The newest versions of what pdm needs do not go together.
PDM_TOOLS = "pdm==2.22.4 hishel<0.1.3 httpx<0.29 unearth<0.18"
HATCH_ENVS = "~/.local/share/hatch/env/virtual/**/p"
MICROMAMBA = """\
#!/bin/sh
# What micromamba does: a prefix with a Python of its own, conda-meta, and the place of all environments.
set -e
root=${MAMBA_ROOT_PREFIX:-$HOME/micromamba}/envs/$3
mkdir -p "$root/conda-meta" "$root/bin"
echo '==> now <==' > "$root/conda-meta/history"
ln -s "{python}" "$root/bin/python3"
"{python}" -m pip install -q --no-warn-script-location --prefix "$root" "$4"
"""
OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "",
    "UV_OFFLINE": "1",
    "UV_FIND_LINKS": "",
}
"""filled by the fixture"""
GIT = "git init -q . && git add -A"

KINDS = [
    Kind("pip", "pip install one", ".venv", first="python3 -m venv .venv"),
    Kind("pip --target", "pip install --target t one", "t", is_venv=False),
    Kind("pip --prefix", "pip install --prefix p one", "p", is_venv=False),
    Kind("PIP_TARGET", "pip install one", "t", environ={"PIP_TARGET": "t"}, is_venv=False),
    Kind("pip.conf", "pip install one", "t", {"pip.conf": "[install]\ntarget = t\n"}, is_venv=False),
    Kind("pip --user", "pip install --user one", "~/.local/lib/python*/site-packages", is_venv=False),
    Kind("PIP_PREFIX", "pip install one", "p", environ={"PIP_PREFIX": "p"}, is_venv=False),
    Kind("pip of a venv", "wrap -- v/bin/pip install one", "v", first="python3 -m venv v"),
    Kind("python -m pip", "wrap -- v/bin/python -m pip install one", "v", first="python3 -m venv v"),
    Kind("another --target", "wrap -- {python} -m pip install -t t one", "t", is_venv=False),
    Kind("uv pip", "uv pip install one", ".venv", first="uv venv -q"),
    Kind("uv pip --target", "uv pip install --python {python} --target t one", "t", is_venv=False),
    Kind("uv pip, links", "uv pip install --link-mode symlink one", ".venv", first="uv venv -q"),
    Kind("uv sync", "uv sync", ".venv", {"pyproject.toml": PROJECT}),
    Kind("uv add", "uv add one", ".venv", {"pyproject.toml": PROJECT.replace('"one"', "")}),
    Kind("uv run", "uv run ask.py", ".venv", {"pyproject.toml": PROJECT, "ask.py": ASK}),
    Kind("uv run script.py", "uv run s.py", "~/uv/environments-v2/*", {"s.py": SCRIPT}),
    Kind("uv run --with", "uv run --with one ask.py", "~/uv/archive-v0/*", {"ask.py": ASK}),
    Kind("uvx", "uvx --with one python ask.py", "~/uv/archive-v0/*", {"ask.py": ASK}),
    Kind("uv tool", "uv tool install --with one tool", "~/.local/share/uv/tools/tool"),
    Kind("wrapped uv", "wrap -- uv sync", ".venv", {"pyproject.toml": PROJECT}),
    Kind(
        "a script of the project",
        "wrap -- sh ./setup.sh",
        "~/.someapp/env",
        {"setup.sh": 'uv venv -q "$HOME/.someapp/env" && uv pip install -qp "$HOME/.someapp/env" one'},
    ),
    Kind(
        "make",
        "wrap -- make VENV=build/venv",
        "build/venv",
        {"Makefile": "all:\n\tuv venv -q $(VENV) && uv pip install -qp $(VENV) one\n"},
    ),
    Kind(
        "micromamba",
        "wrap -- ./micromamba create -n science {wheel}",
        "~/micromamba/envs/science",
        {"micromamba": MICROMAMBA},
        is_venv=False,
    ),
    Kind("virtualenv", "wrap -- sh setup.sh", "v", {"setup.sh": VIRTUALENV}, "virtualenv"),
    Kind("poetry", "wrap -- poetry install -n", POETRY_VENVS, {"pyproject.toml": POETRY}, "poetry"),
    Kind(
        "poetry in the project",
        "wrap -- poetry install -n",
        ".venv",
        {"pyproject.toml": POETRY},
        "poetry",
        environ={"POETRY_VIRTUALENVS_IN_PROJECT": "true"},
    ),
    Kind(
        "pipx",
        "wrap -- pipx install --preinstall {wheel} tool",
        "~/.local/share/pipx/venvs/*",
        tools="pipx",
        needs="pip",
    ),
    Kind("tox", "wrap -- tox", ".tox/a", {"tox.ini": TOX, "ask.py": ASK}, "tox"),
    Kind("nox", "wrap -- nox", ".nox/tests", {"noxfile.py": NOX}, "nox virtualenv"),
    Kind("hatch env", "wrap -- hatch env create", HATCH_ENVS, {"pyproject.toml": HATCH}, "hatch"),
    Kind(
        "hatch run",
        "wrap -- hatch run python ask.py",
        HATCH_ENVS,
        {"pyproject.toml": HATCH, "ask.py": ASK},
        "hatch",
    ),
    Kind(
        "hatch run script.py",
        "wrap -- hatch run s.py",
        "~/.local/share/hatch/env/virtual/.scripts/*",
        {"s.py": SCRIPT},
        "hatch",
    ),
    Kind(
        "hatch test",
        "wrap -- hatch test",
        "~/.local/share/hatch/env/virtual/**/hatch-test*",
        {"pyproject.toml": HATCH_TEST, "tests/test_ask.py": f"def test():\n    {ASK}\n"},
        "hatch",
        "iniconfig packaging pluggy pygments pytest",
    ),
    Kind(
        "pipx run",
        "wrap -- pipx run --spec {wheel} python ask.py",
        "~/.cache/pipx/*",
        {"ask.py": ASK},
        "pipx",
        "pip",
    ),
    Kind(
        "pdm run script.py",
        "wrap -- pdm run s.py",
        "~/.local/share/pdm/venvs/*",
        {"s.py": PDM_SCRIPT},
        PDM_TOOLS,
    ),
    Kind("pdm", "wrap -- pdm install", ".venv", {"pyproject.toml": PDM}, PDM_TOOLS),
    Kind("pipenv", "wrap -- pipenv install {wheel}", "~/.local/share/virtualenvs/*", tools="pipenv"),
    Kind(
        "pre-commit",
        "wrap -- pre-commit install-hooks",
        "~/.cache/pre-commit/repo*/py_env-*",
        {".pre-commit-config.yaml": HOOKS, "ask.py": ASK},
        "pre-commit",
        "setuptools",
        first=GIT,
    ),
    Kind(
        "pre-commit run",
        "wrap -- pre-commit run -a",
        "~/.cache/pre-commit/repo*/py_env-*",
        {".pre-commit-config.yaml": HOOKS, "ask.py": ASK},
        "pre-commit",
        "setuptools",
        first=GIT,
    ),
]  # fmt: skip


@pytest.fixture(scope="session")
def base_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python of no venv, so that no test can install into the machine's."""
    return relocate(str(tmp_path_factory.mktemp("base") / "python"), starts=True)


@pytest.fixture(scope="session")
def tool_bin(tmp_path_factory: pytest.TempPathFactory, base_python: str) -> Callable[[str], str]:
    """Install an installer from PyPI into a venv of its own; returns its bin."""
    base = str(tmp_path_factory.mktemp("tools"))

    def install(requirements: str) -> str:
        venv = os.path.join(base, requirements.split(maxsplit=1)[0])
        if not os.path.isdir(venv):
            subprocess.run([find_uv_bin(), "venv", "-q", "-p", base_python, venv], check=True)
            command = [find_uv_bin(), "pip", "install", "-q", "-p", venv, *requirements.split()]
            environ = _online(UV_CACHE_DIR=os.path.join(base, "cache"), UV_SYSTEM_CERTS="true")
            subprocess.run(command, check=True, env=environ)
        return os.path.join(venv, "bin")

    return install


def _online(**values: str) -> dict[str, str]:
    """Return an environment in which the index is asked."""
    return {**{name: value for name, value in os.environ.items() if name not in OFFLINE}, **values}


@pytest.fixture(scope="session")
def backend_wheels(tmp_path_factory: pytest.TempPathFactory, base_python: str) -> Callable[[str], list[str]]:
    """Download wheels of build backends."""
    base = str(tmp_path_factory.mktemp("backends"))

    def download(names: str) -> list[str]:
        directory = os.path.join(base, names.replace(" ", "-"))
        if not os.path.isdir(directory):
            subprocess.run(
                [base_python, "-m", "pip", "download", "-q", "--no-deps", "-d", directory, *names.split()],
                check=True,
                env=_online(),
            )
        return glob.glob(os.path.join(directory, "*.whl"))

    return download


class Lab:
    """A home directory and a project, empty at first."""

    def __init__(
        self, kind: Kind, root: str, shop: Shop, python: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.kind = kind
        self.python = python
        self.home, self.project = (os.path.join(root, name) for name in ("home", "project"))
        for directory in (self.home, self.project):
            os.makedirs(directory)
        self.words = {
            "wheels": shop.wheels,
            "wheel": os.path.join(shop.wheels, "one-1.0-py3-none-any.whl"),
            "python": python,
            "ask": ASK,
        }
        values = {"HOME": self.home, "UV_CACHE_DIR": os.path.join(self.home, "uv"), **kind.environ}
        if "pip.conf" in kind.files:
            values["PIP_CONFIG_FILE"] = os.path.join(self.project, "pip.conf")
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(self.project)
        for name, template in kind.files.items():
            text = template
            os.makedirs(os.path.dirname(os.path.abspath(name)), exist_ok=True)
            with open(name, "w", encoding="utf-8") as file:
                for word, value in self.words.items():
                    text = text.replace(f"{{{word}}}", value)
                file.write(text)
            os.chmod(name, 0o755)
        if kind.first:
            subprocess.run(kind.first, shell=True, check=True)

    def filled(self, words: list[str]) -> list[str]:
        return [word.format_map(self.words) for word in words]

    @property
    def environments(self) -> list[str]:
        """What the installer made that has the wheel."""
        pattern = os.path.join(self.project, self.kind.environment.replace("~", self.home))
        paths = glob.glob(pattern, recursive=True, include_hidden=True)
        return [path for path in paths if self._one(path)]

    def _one(self, path: str) -> list[str]:
        patterns = ("one", "lib/python*/site-packages/one", "local/lib/python*/dist-packages/one")
        return [
            match
            for pattern in patterns
            for match in glob.glob(os.path.join(path, pattern))
            if self.kind.is_venv is False or os.path.exists(os.path.join(path, "pyvenv.cfg"))
        ]

    def ask(self, path: str) -> str:
        """Load the extension with the environment's Python."""
        environ = dict(os.environ)
        python = os.path.join(path, "bin", "python")
        if not self.kind.is_venv:
            (package,) = self._one(path)
            environ["PYTHONPATH"], python = os.path.dirname(package), self.python
        done = subprocess.run([python, "-c", ASK], env=environ, capture_output=True, text=True, check=False)
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@pytest.fixture
def labs(
    shop: Shop,
    base_python: str,
    monkeypatch: pytest.MonkeyPatch,
    tool_bin: Callable[[str], str],
    backend_wheels: Callable[[str], list[str]],
) -> Callable[[Kind], Lab]:
    """Make a home and a project for a kind, as often as wanted."""
    shop.wheel("one")
    script = {"tool-1.0.dist-info/entry_points.txt": b"[console_scripts]\ntool = tool:main\n"}
    make_wheel(shop.wheels, "tool", "1.0", more_files=script)
    for name in [name for name in os.environ if name.startswith(("XDG_", "PIP_", "UV_", "CONDA", "VIRTUAL"))]:
        monkeypatch.delenv(name)
    values = {
        "XDG_CACHE_HOME": "",
        **OFFLINE,
        "PIP_FIND_LINKS": shop.wheels,
        "UV_FIND_LINKS": shop.wheels,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "VIRTUALENV_NO_DOWNLOAD": "1",
        "PDM_CHECK_UPDATE": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    made = 0
    uv_alone = os.path.join(shop.world.root, "uv-bin")
    os.mkdir(uv_alone)
    for name in ("uv", "uvx"):
        os.symlink(os.path.join(os.path.dirname(find_uv_bin()), name), os.path.join(uv_alone, name))

    def make(kind: Kind) -> Lab:
        nonlocal made
        made += 1
        for wheel in backend_wheels(kind.needs) if kind.needs else ():
            shutil.copy(wheel, shop.wheels)
        # No directory of a venv but that of the tool: its Python would be taken.
        path = [tool_bin(kind.tools) if kind.tools else uv_alone]
        monkeypatch.setenv(
            "PATH", ":".join([*path, os.path.dirname(base_python), "/usr/local/bin:/usr/bin:/bin"])
        )
        return Lab(kind, os.path.join(shop.world.root, f"lab{made}"), shop, base_python, monkeypatch)

    return make


def _params() -> list[object]:
    marks = (pytest.mark.pypi,)
    return [pytest.param(kind, id=kind.name, marks=marks if kind.tools else ()) for kind in KINDS]


@pytest.mark.parametrize("kind", _params())
def test_one_command(kind: Kind, labs: Callable[[Kind], Lab], capfd: pytest.CaptureFixture[str]) -> None:
    plain = labs(kind)
    done = subprocess.run(plain.filled(kind.plain), capture_output=True, text=True, check=False)
    assert plain.environments, done.stdout + done.stderr
    for path in plain.environments:
        assert "cannot open shared object file" in plain.ask(path)

    lab = labs(kind)
    capfd.readouterr()
    code = run(lab.filled(kind.command.split()))
    output = capfd.readouterr()

    assert code == 0, output.out + output.err
    assert "sitecustomize" not in output.err
    assert lab.environments
    for path in lab.environments:
        assert lab.ask(path) == "answer 42", output.err
        python = () if kind.is_venv else ("--python", lab.python)
        assert run(["verify", *python, path]) == 0, capfd.readouterr().out
        assert run(["restore", path]) == 0
        assert "cannot open shared object file" in lab.ask(path)


def test_there_are_as_many_kinds_as_promised() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 20
