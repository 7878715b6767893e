# The setup hook; `nixpatch` is the package with the program that it runs.
{ makeSetupHook, nixpatch }:
makeSetupHook {
  name = "nixpatch-hook";
  # The hook runs it by its full path, so neither nixpatch nor its Python are in the PATH of the build.
  substitutions = { inherit nixpatch; };
} ./setup-hook.sh
