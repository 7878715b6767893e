# One wheel: an environment of its own. Its dists from elsewhere are not seen: see environment.nix for that.
scope:
{ wheel, ... }@arguments:
let
  base = builtins.unsafeDiscardStringContext (baseNameOf wheel);
  inStore = builtins.isString wheel && dirOf wheel == builtins.storeDir;
  # In the store there is a hash before the name.
  file = wheel.name or (if inStore then builtins.substring 33 (-1) base else base);
  parts = builtins.match "([^-]+)-([^-]+)-.*[.]whl" file;
  # numpy-2.4.6-cp311-...: the name and the version of the dist
  name = if parts == null then throw "${file} is not named as a wheel is" else
    "${builtins.elemAt parts 0}-${builtins.elemAt parts 1}";
in
import ./environment.nix scope ({ inherit name; } // removeAttrs arguments [ "wheel" ] // { wheels = [ wheel ]; })
