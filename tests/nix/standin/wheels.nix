# The derivations of test_hook.py: `wheels`, `inputs` and `tools` are words, `more` is JSON for the derivation.
{ store, tool, installer, strip, wheels, inputs, tools ? "", more ? "{}" }:
let
  nixpkgs = import ./. { inherit store tool installer strip; };
  words = text: builtins.filter (word: builtins.isString word && word != "") (builtins.split " " text);
  file = path: builtins.path { inherit path; name = baseNameOf path; };
  files = map file (words wheels);
  packages = text: map (name: nixpkgs.packages.${name}) (words text);
  arguments = { buildInputs = packages inputs; nativeBuildInputs = packages tools; } // builtins.fromJSON more;
in
if builtins.length files == 1
then nixpkgs.wheel ({ wheel = builtins.head files; } // arguments)
else nixpkgs.environment ({ name = "merged"; wheels = files; } // arguments)
