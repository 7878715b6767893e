"""A Nix expression for a directory with the libraries of a manylinux policy."""

from __future__ import annotations

from collections.abc import Callable

from nixpatch.model.manylinux import ManylinuxPolicy
from nixpatch.model.missing import Attribute, AttributeKind
from nixpatch.store.catalog import Catalog, packaged

_TEXT = """\
# A directory of links to the system libraries that {title} wheels may use ({source}).
#
#   nixpatch --lib "$(nix-build --no-out-link bundle.nix)" .venv
#
# or in the buildInputs of a derivation with nixpatchHook. Files get the store paths behind the links, so only
# used libraries become part of a closure. The libraries of libc are not included: they come with the Python.
# The build fails if a library is missing, and names it. `more` adds libraries: soname -> package.
# Written by `nixpatch bundle`.
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
    """Return a function from nixpkgs to a directory with the libraries of a policy, without those of libc.

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
    newest = catalog.lookup(soname)
    if newest is None or newest.kind is not AttributeKind.PACKAGE:
        raise LookupError(soname)
    # nixpkgs renames packages: an older nixpkgs has the older name.
    older = (
        other for other in catalog.alternatives(soname) if f"{other.attribute} before nixpkgs" in newest.note
    )
    return " or ".join(_of_pkgs(attribute) for attribute in (newest, *older))


def _of_pkgs(attribute: Attribute) -> str:
    get, _, path = attribute.expression.rpartition(" ")
    name = path if path.startswith("pkgs.") else f"pkgs.{path}"
    return f"getLib {name}" if get else name
