# Install wheels into one site-packages and link them as one tree, so that they find each other's libraries.
#
# `wheels` are files (paths or fetchurl) with the names of wheels; `buildInputs` have the libraries. All other
# arguments go to mkDerivation: nixpatchIgnoreMissing, runtimeDependencies, ...
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

  # Installers need the name of a wheel; the name of a store path has a hash before it.
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
  # No bytecode: it would contain the modification times of its sources.
  installPhase = ''
    runHook preInstall
    for wheel in dist/*.whl; do
      PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=${installer}/${python.sitePackages} \
        ${pythonOnBuild}/bin/python3 -m installer --no-compile-bytecode --prefix "$out" "$wheel"
    done
    runHook postInstall
  '';
  # Wheels are stripped already or must not be, and RECORD has the hashes of their files.
  dontStrip = arguments.dontStrip or true;
  dontPatchELF = arguments.dontPatchELF or true;

  # A module of this Python: python.withPackages and the dependencies of other packages take it.
  passthru = {
    pythonModule = python;
    requiredPythonModules =
      (python.pkgs.requiredPythonModules or (_: [ python ])) (arguments.propagatedBuildInputs or [ ]);
    pythonPath = [ ];
  } // arguments.passthru or { };
})
