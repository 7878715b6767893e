# A directory of links to the system libraries that manylinux_2_28 wheels may use (PEP 600).
#
#   nixpatch --lib "$(nix-build --no-out-link bundle.nix)" .venv
#
# or in the buildInputs of a derivation with nixpatchHook. Files get the store paths behind the links, so only
# used libraries become part of a closure. The libraries of libc are not included: they come with the Python.
# The build fails if a library is missing, and names it. `more` adds libraries: soname -> package.
# Written by `nixpatch bundle`.
{ pkgs ? import <nixpkgs> { }, more ? { } }:
let
  getLib = package: package.lib or package.out or package;
  libraries = {
    "libGL.so.1" = pkgs.libGL;
    "libICE.so.6" = pkgs.libice or pkgs.xorg.libICE;
    "libSM.so.6" = pkgs.libsm or pkgs.xorg.libSM;
    "libX11.so.6" = pkgs.libx11 or pkgs.xorg.libX11;
    "libXext.so.6" = pkgs.libxext or pkgs.xorg.libXext;
    "libXrender.so.1" = pkgs.libxrender or pkgs.xorg.libXrender;
    "libatomic.so.1" = pkgs.stdenv.cc.cc.lib;
    "libexpat.so.1" = pkgs.expat;
    "libgcc_s.so.1" = pkgs.stdenv.cc.cc.lib;
    "libglib-2.0.so.0" = getLib pkgs.glib;
    "libgobject-2.0.so.0" = getLib pkgs.glib;
    "libgthread-2.0.so.0" = getLib pkgs.glib;
    "libstdc++.so.6" = pkgs.stdenv.cc.cc.lib;
    "libz.so.1" = pkgs.zlib;
  } // builtins.mapAttrs (_: getLib) more;
  link = soname: ''
    file=${libraries.${soname}}/lib/${soname}
    if [ -e "$file" ]; then
      ln -s "$file" "$out/lib/"
    else
      echo "${soname}: there is no $file" >&2
      missing=1
    fi
  '';
in
pkgs.runCommand "manylinux_2_28-libraries" { } ''
  mkdir -p $out/lib
  missing=
  ${builtins.concatStringsSep "" (map link (builtins.attrNames libraries))}
  if [ -n "$missing" ]; then exit 1; fi
''
