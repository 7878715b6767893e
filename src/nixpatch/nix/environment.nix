# Wheels that see each other: all of them installed into one site-packages and linked as one tree.
#
# `wheels` are files (paths or fetchurl) named as wheels are; `buildInputs` have the libraries. Whatever else is
# given goes to mkDerivation: nixpatchIgnoreMissing, runtimeDependencies, ...
{ stdenv
, python
, nixpatchHook
, installer ? (python.pythonOnBuildForHost or python).pkgs.installer
}:
{ name, wheels, buildInputs ? [ ], nativeBuildInputs ? [ ], ... }@arguments:
let
  pythonOnBuild = python.pythonOnBuildForHost or python;
in
stdenv.mkDerivation (removeAttrs arguments [ "wheels" ] // {
  inherit wheels;
  nativeBuildInputs = [ pythonOnBuild nixpatchHook ] ++ nativeBuildInputs;
  buildInputs = [ python ] ++ buildInputs;
  strictDeps = arguments.strictDeps or true;

  # The name of a wheel is a part of it, a store path has a hash before that.
  unpackPhase = ''
    runHook preUnpack
    mkdir dist
    for wheel in ''${wheels[@]}; do
      file=''${wheel##*/}
      case $wheel in "$NIX_STORE"/*) file=''${file#*-} ;; esac
      cp "$wheel" "dist/$file"
    done
    runHook postUnpack
  '';
  dontConfigure = true;
  dontBuild = true;
  # Bytecode would hold the times at which its sources were written.
  installPhase = ''
    runHook preInstall
    for wheel in dist/*.whl; do
      PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=${installer}/${python.sitePackages} \
        ${pythonOnBuild}/bin/python3 -m installer --no-compile-bytecode --prefix "$out" "$wheel"
    done
    runHook postInstall
  '';
  # Wheels come stripped or with a reason not to be, and RECORD says what is in them.
  dontStrip = arguments.dontStrip or true;
  dontPatchELF = arguments.dontPatchELF or true;
})
