# One wheel, unpacked into $out and patched there: the shape of an installPhase, without a stdenv.
{ python, wheel, tool, inputs }:
let
  store = path: builtins.storePath path;
  paths = builtins.filter (path: builtins.isString path && path != "") (builtins.split " " inputs);
in
derivation {
  name = "wheel-environment";
  system = "x86_64-linux";
  builder = "${store python}/bin/python3";
  args = [ ./wheel_builder.py ];
  wheel = builtins.path { path = wheel; name = "wheel.whl"; };
  tool = builtins.path { path = tool; name = "nixpatch-site-packages"; };
  python = "${store python}/bin/python3"; # argv[0] of a builder is no path, so Python cannot tell its own
  inputs = map store paths;
}
