# The setup hook; `nixpatch` is the program that it runs.
{ makeSetupHook, nixpatch }:
makeSetupHook {
  name = "nixpatch-hook";
  # By its full path, and not propagated: neither nixpatch nor its Python get into the build's PATH.
  substitutions = { inherit nixpatch; };
} ./setup-hook.sh
