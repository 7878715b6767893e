# The libraries on offer to wheels: those of wheel-libraries.json that pkgs has, and the packages in `libraries`.
{ pkgs, libraries ? [ ] }:
let
  inherit (builtins) concatMap filter hasAttr head isAttrs isString map match split substring tail tryEval unsafeDiscardStringContext;
  table = builtins.fromJSON (builtins.readFile ./wheel-libraries.json);
  getLib = package: package.lib or package.out or package;
  baseName = path:
    let name = unsafeDiscardStringContext (baseNameOf (toString path)); in
    if match "[0-9a-df-np-sv-z]{32}-.+" name != null then substring 33 (-1) name else name;

  # null if pkgs lacks it; throws if pkgs refuses it: removed, broken, unfree
  attribute = path:
    let
      step = set: names:
        if names == [ ] then set
        else if isAttrs set && hasAttr (head names) set then step set.${head names} (tail names)
        else null;
      package = step pkgs (filter isString (split "[.]" path));
    in
    if package == null || !(package.meta.available or true) then null
    else builtins.seq (getLib package).outPath (getLib package);
  firstOf = names:
    let tried = filter (result: result.success && result.value != null) (map (name: tryEval (attribute name)) names); in
    map (result: { key = head names; package = result.value; }) (if tried == [ ] then [ ] else [ (head tried) ]);
in
rec {
  inherit baseName;
  # { key, package }: the key is the same in every nixpkgs
  offered = map (package: { key = package.pname or package.name or (baseName package); package = getLib package; }) libraries
    ++ concatMap firstOf table.all;
  # For the wheel of one dist. Where libraries are plain store paths (pinned, or built elsewhere), other packages
  # cannot be evaluated with them, and tryEval does not catch that.
  offeredTo = dist: if pkgs.zlib ? override then concatMap firstOf (table.dists.${dist} or [ ]) else [ ];
  # Names of wheels that the wheel of a dist uses without requiring them
  used = dist: table.wheels.${dist} or [ ];
  # One package instead of many. A link to a library counts as that library, so nothing refers to this package.
  bundle = pkgs.runCommand "nixpatch-libraries" { libraries = map (entry: entry.package) offered; } ''
    mkdir -p $out/lib
    for package in ''${libraries[@]}; do
      for file in "$package"/lib/*.so*; do
        name=''${file##*/}
        if [ -f "$file" ] && [ ! -e "$out/lib/$name" ]; then ln -s "$file" "$out/lib/"; fi
      done
    done
  '';
}
