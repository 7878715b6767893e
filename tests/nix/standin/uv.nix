# uv.nix over the stand-in: `program` is a uv of the machine.
{ store, tool, installer, strip, program }:
let
  nixpkgs = import ./. { inherit store tool installer strip; };
  inherit (nixpkgs) packages stdenv;
  runCommand = name: attributes: script: stdenv.mkDerivation
    (removeAttrs attributes [ "meta" "passthru" ] // { inherit name; unpackPhase = ":"; installPhase = script; dontStrip = true; dontPatchELF = true; });
  pkgs = { inherit (packages) zlib; inherit runCommand; stdenv.cc.cc.lib = packages.gccLib; };
in
import ../../../src/nixpatch/nix/uv.nix {
  lib = { inherit (builtins) concatMap; escapeShellArgs = toString; };
  inherit runCommand;
  inherit (nixpkgs) nixpatch;
  runtimeShell = "${packages.bash}/bin/bash";
  uv = runCommand "uv-1" { inherit program; } "mkdir -p $out/bin $out/share; ln -s $program $out/bin/uv; ln -s $program $out/bin/uvx";
  python3 = packages.python3;
  libraryBundle = (import ../../../src/nixpatch/nix/wheel-libraries.nix { inherit pkgs; }).bundle;
}
