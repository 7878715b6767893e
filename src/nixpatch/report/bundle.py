"""The libraries that a manylinux policy promises, as a Nix expression: pure, from policy and catalog."""

from __future__ import annotations

from collections.abc import Callable

from nixpatch.model.manylinux import ManylinuxPolicy
from nixpatch.model.missing import Attribute, AttributeKind
from nixpatch.store.catalog import Catalog, packaged

_TEXT = """\
# The libraries that {title} promises to wheels ({source}), as one directory of links.
#
#   nixpatch --lib "$(nix-build --no-out-link bundle.nix)" .venv
#
# or in the buildInputs of a derivation with nixpatchHook. Files get the store paths behind the links, so that
# only what is used comes into a closure. libc's own are not here: they come with the Python.
# The build fails where a library is missing, and says which. `more` adds to them: soname -> package.
# Made by `nixpatch bundle`.
{{ pkgs ? import <nixpkgs> {{ }}, more ? {{ }} }}:
let
  getLib = package: package.lib or package.out or package;
  libraries = {{
{rows}
  }} // builtins.mapAttrs (_: getLib) more;
  link = soname: ''
    file=${{libraries.${{soname}}}}/lib/${{soname}}
    if [ -e "$file" ]; then
      ln -s "$file" "$out/lib/"
    else
      echo "${{soname}}: there is no $file" >&2
      missing=1
    fi
  '';
in
pkgs.runCommand "{name}-libraries" {{ }} ''
  mkdir -p $out/lib
  missing=
  ${{builtins.concatStringsSep "" (map link (builtins.attrNames libraries))}}
  if [ -n "$missing" ]; then exit 1; fi
''
"""


def nix(policy: ManylinuxPolicy, is_libc: Callable[[str], bool], catalog: Catalog | None = None) -> str:
    """Return a function from nixpkgs to a directory with the libraries of a policy, but for libc's own.

    Raises:
        LookupError: the catalog has no attribute for one of them.

    """
    catalog = catalog or packaged()
    rows = [
        f'    "{soname}" = {_expression(soname, catalog)};'
        for soname in sorted(policy.libraries)
        if not is_libc(soname)
    ]
    return _TEXT.format(title=policy.title, source=policy.source, name=policy.name, rows="\n".join(rows))


def _expression(soname: str, catalog: Catalog) -> str:
    found = catalog.lookup(soname)
    if found is None or found.kind is not AttributeKind.PACKAGE:
        raise LookupError(soname)
    # nixpkgs renames packages: the older name serves where the newer one is not there yet.
    older = (
        other for other in catalog.alternatives(soname) if f"{other.attribute} before nixpkgs" in found.note
    )
    return " or ".join(_of_pkgs(attribute) for attribute in (found, *older))


def _of_pkgs(attribute: Attribute) -> str:
    get, _, path = attribute.expression.rpartition(" ")
    name = path if path.startswith("pkgs.") else f"pkgs.{path}"
    return f"getLib {name}" if get else name
