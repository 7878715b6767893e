# Shaped like nixpkgs: the attributes that the catalog names, made of the packages of the test store.
{ plan, debs, seed, mark }:
let
  store = (import ../support/testbed/default.nix { inherit plan debs seed; }).packages;
  seedPath = builtins.path { path = seed; name = "testbed-seed"; };
  # A build that was not done yet: `mark` gives every test run derivations of its own.
  build = name: outputs: script: derivation {
    inherit name outputs mark;
    system = "x86_64-linux";
    builder = "${seedPath}/bin/busybox";
    args = [ "sh" "-c" "export PATH=${seedPath}/bin; ${script}" ];
  };
in
{
  inherit (store) zlib expat glib;
  runCommand = name: _: build name [ "out" ];
  libGL = store.libglvnd;
  stdenv.cc.cc.lib = store.gccLib;
  zstd = build "zstd-mirror" [ "out" ] "mkdir -p $out; cp -r ${store.zstd}/lib $out/lib";
  # As before nixpkgs 26.05.
  xorg = { inherit (store) libX11 libXext libXrender libICE libSM; };
  # No index knows its outputs: its libraries are in lib.
  cudaPackages.cudnn = build "cudnn" [ "out" "lib" ]
    "mkdir -p $out $lib/lib; cp ${store.lz4}/lib/liblz4.so.1 $lib/lib/libcudnn.so.9";
  libxkbcommon = build "libxkbcommon" [ "out" ] "echo no luck today >&2; exit 7";
  # Not what the catalog thinks.
  libpng.out = store.zlib;
}
