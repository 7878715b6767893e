# nixpatch itself, for nixpkgs; `src` is this repository.
{ python3Packages, src, version }:
python3Packages.buildPythonApplication {
  pname = "nixpatch";
  inherit src version;
  pyproject = true;
  build-system = [ python3Packages.hatchling ];
  dependencies = with python3Packages; [ lief packaging pyelftools typer ];
  # The bounds keep an install from PyPI pure Python; packages that nixpkgs builds from source do not need them.
  # LIEF is loaded only for --writer lief, and its output is checked.
  pythonRelaxDeps = [ "lief" "typer" ];
  pythonImportsCheck = [ "nixpatch" ];
  # The tests need a Nix store of their own: see .ci/run.
  doCheck = false;
  meta = {
    description = "Link installed PyPI wheels against the Nix store, in place";
    mainProgram = "nixpatch";
    platforms = [ "x86_64-linux" "aarch64-linux" ];
  };
}
