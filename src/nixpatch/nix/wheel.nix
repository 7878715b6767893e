# Install one wheel. Wheels that need libraries of other wheels need environment.nix.
scope:
{ wheel, ... }@arguments:
let
  base = builtins.unsafeDiscardStringContext (baseNameOf wheel);
  inStore = builtins.isString wheel && dirOf wheel == builtins.storeDir;
  # The name of a store path begins with a hash.
  file = wheel.name or (if inStore then builtins.substring 33 (-1) base else base);
  parts = builtins.match "([^-]+)-([^-]+)-.*[.]whl" file;
  # numpy-2.4.6-cp311-...: the name and the version of the dist
  name = if parts == null then throw "${file} does not have the name of a wheel" else
    "${builtins.elemAt parts 0}-${builtins.elemAt parts 1}";
in
import ./environment.nix scope ({ inherit name; } // removeAttrs arguments [ "wheel" ] // { wheels = [ wheel ]; })
