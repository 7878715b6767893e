# The test store: every entry of the plan (see plan.py) becomes a derivation that busybox builds.
{ plan, debs, seed }:
let
  specs = builtins.fromJSON (builtins.readFile plan);
  seedPath = builtins.path { path = seed; name = "testbed-seed"; };
  scripts = builtins.path { path = ./builder; name = "testbed-builder"; };
  # Store names allow less than Debian's file names.
  deb = file: builtins.path {
    path = "${debs}/${file}";
    name = builtins.replaceStrings [ "~" "%" ] [ "_" "_" ] file;
  };
  package = attr: spec: derivation ({
    inherit attr scripts;
    inherit (spec) name patch;
    system = "x86_64-linux";
    builder = "${seedPath}/bin/busybox";
    args = [ "sh" "${scripts}/build.sh" ];
    seed = seedPath;
    debs = map deb spec.debs;
    inputs = map (input: packages.${input}) spec.inputs;
    glibc = if spec.patch then packages.glibc else "";
  } // spec.variables);
  packages = builtins.mapAttrs package specs;
in
{
  inherit packages;
  outputs = builtins.mapAttrs (attr: package: package.outPath) packages;
}
