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
  # A wrapper would put this Python and the programs of its packages first into PATH, where `nixpatch uv`, `wrap`
  # and `env` look for the user's. So the script itself adds its packages; -I keeps the caller's PYTHONPATH out.
  dontWrapPythonPrograms = true;
  postFixup = ''
    buildPythonPath "$out $pythonPath"
    patchPythonScript $out/bin/nixpatch
    sed -i '1s|$| -I|' $out/bin/nixpatch
    # It is a program: a shell or a build that has it must not get its packages into PYTHONPATH.
    rm -f $out/nix-support/propagated-build-inputs
  '';
  pythonImportsCheck = [ "nixpatch" ];
  # The tests need a Nix store of their own: see .ci/run.
  doCheck = false;
  meta = {
    description = "Link installed PyPI wheels against the Nix store, in place";
    mainProgram = "nixpatch";
    platforms = [ "x86_64-linux" "aarch64-linux" ];
  };
}
