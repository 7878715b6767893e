# Debian has sh in another package (and another shell); nixpkgs has it here.
ln -s bash "$out/bin/sh"
