# An overlay for the Python sets of pyproject.nix and uv2nix: nixpatchHook links every wheel.
#
#   pythonSet = (pkgs.callPackage pyproject-nix.build.packages { inherit python; }).overrideScope
#     (lib.composeManyExtensions [ ... nixpatch.overlays.pyproject ]);
#
# Each wheel gets the libraries of wheel-libraries.json that pkgs has, and the wheels that it depends on; its closure
# has only those that it uses. Attributes of the set that an overlay after this one may override:
#   nixpatchLibraries   packages with more libraries, for every wheel: [ pkgs.libpq ]
#   nixpatchLock        a file that mkNixpatchLock made: a wheel that is in it gets only what it used then, so it is
#                       not built again when something else changes
#   mkNixpatchLock      that derivation, from a specification as for mkVirtualEnv: mkNixpatchLock workspace.deps.default
{ pkgs, nixpatchHook }:
final: prev:
let
  inherit (builtins) all attrNames attrValues concatLists concatMap elem filter genericClosure head isAttrs isList map match
    stringLength substring;
  inherit (import ./wheel-libraries.nix { inherit pkgs; libraries = final.nixpatchLibraries; }) baseName bundle offered offeredTo used;
  sourceFile = package: package.src.name or (baseName (package.src or ""));
  endsIn = end: text: let from = stringLength text - stringLength end; in from >= 0 && substring from (-1) text == end;

  isWheel = package: isAttrs package && package ? overrideAttrs
    && (package.passthru.format or "" == "wheel" || endsIn ".whl" (sourceFile package));
  # Wheels for any platform (PEP 425) have no libraries for others.
  isNative = package: isWheel package && !endsIn "-any.whl" (sourceFile package);
  isLinux = prev.stdenv.hostPlatform.isLinux or true;

  # The lock knows a wheel by its file. Libraries that were not on offer when it was written go to every wheel.
  lock = if final.nixpatchLock == null then { offered = [ ]; wheels = { }; } else builtins.fromJSON (builtins.readFile final.nixpatchLock);
  rowOf = name:
    let
      row = lock.wheels.${sourceFile prev.${name}} or null;
      keys = map (entry: entry.key) (offered ++ offeredTo name);
    in
    if row != null && all (key: elem key keys) row.libraries && all (other: prev ? ${other}) row.wheels then row else null;
  librariesOf = name: row: map (entry: entry.package)
    (filter (entry: elem entry.key row.libraries || !elem entry.key lock.offered) (offered ++ offeredTo name));
  # uv2nix gives them to all wheels.
  manylinux = map toString (concatLists (attrValues (pkgs.pythonManylinuxPackages or { })));

  # name -> what it may require: with the extras that are in the set, because uv.lock has those that are asked for
  required = builtins.mapAttrs
    (name: package:
      let passthru = if isAttrs package then package.passthru or { } else { }; in
      filter (other: prev ? ${other}) (concatMap attrNames ([ (passthru.dependencies or { }) ] ++ attrValues (passthru.optional-dependencies or { })) ++ used name))
    prev;
  closureOf = edges: name: map (entry: entry.key) (genericClosure {
    startSet = map (key: { inherit key; }) edges.${name};
    operator = entry: map (key: { inherit key; }) edges.${entry.key};
  });
  # name -> the wheels that its libraries may come from, and all that these may need
  lenders = builtins.mapAttrs
    (name: package:
      if !isNative package then [ ]
      else if rowOf name != null then (rowOf name).wheels
      else filter (other: other != name && isNative prev.${other}) (closureOf required name))
    prev;
  reached = builtins.mapAttrs (name: _: closureOf lenders name) prev;
  # Those that need each other, name among them; [ ] for any other wheel
  circleOf = name:
    let others = filter (other: elem name reached.${other}) reached.${name}; in
    if others == [ ] then [ ] else builtins.sort builtins.lessThan others;

  inputsOf = name: old:
    let
      row = rowOf name;
      given = old.buildInputs or [ ];
    in
    (if row == null then given else filter (input: !elem (toString input) manylinux) given)
    ++ (if row == null then [ bundle ] ++ map (entry: entry.package) (offeredTo name) else librariesOf name row)
    ++ map (other: final.${other}) (filter (other: !elem other (circleOf name)) lenders.${name});

  isHook = input: isAttrs input && match "(auto-patchelf-hook|nixpatch-hook)" (input.name or "") != null;
  link = name: package: package.overrideAttrs (old: {
    nativeBuildInputs = filter (input: !isHook input) (old.nativeBuildInputs or [ ]) ++ [ nixpatchHook ];
    buildInputs = inputsOf name old;
    # Python is only a tool of these builds; by default the first one of PATH would be the target.
    nixpatchPython = final.python;
    passthru = (old.passthru or { }) // { nixpatchWheel = { inherit name; file = sourceFile package; }; };
  });

  # Python packages may need each other, derivations may not: these wheels are linked in one derivation, and each of
  # them is links into it. What an override adds to one of them is an input of the common derivation.
  circleLists = [ "nixpatchIgnoreMissing" "autoPatchelfIgnoreMissingDeps" "appendRunpaths" "runtimeDependencies" "nixpatchFlags" ];
  circles = builtins.mapAttrs
    (name: package:
      let
        members = circleOf name;
        toList = value: if isList value then value else [ value ];
        both = attribute: concatMap (other: toList (final.${other}.${attribute} or [ ])) members;
      in
      (link name package).overrideAttrs (old: {
        pname = "wheels-in-a-circle-${builtins.concatStringsSep "-" members}";
        buildInputs = concatMap (other: final.${other}.buildInputs) members;
        wheels = map (other: prev.${other}.src) members;
        inherit members;
        dontUnpack = true;
        buildPhase = "true";
        installPhase = ''
          wheels=(''${wheels[@]})
          members=(''${members[@]})
          for number in "''${!wheels[@]}"; do
            rm -rf dist
            src=''${wheels[$number]} pyprojectWheelDist
            out=$out/''${members[$number]} pyprojectInstallPhase
          done
        '';
        dontNixpatch = true;
        dontUsePyprojectOutputSetupHook = true;
        preFixup = builtins.concatStringsSep "\n" (map (other: final.${other}.preFixup or "") members);
        postFixup = ''
          for member in "''${members[@]}"; do nixpatchGatherSites "$out/$member"; done
          for member in "''${members[@]}"; do nixpatchPatch --accept-modified "$out/$member"; done
        '';
      } // builtins.listToAttrs (map (name: { inherit name; value = both name; }) circleLists)))
    prev;
  partOfCircle = name: package: (link name package).overrideAttrs (_: {
    dontUnpack = true;
    buildPhase = "true";
    installPhase = ''
      mkdir -p $out
      ln -s ${circles.${head (circleOf name)}}/${name}/* $out/
    '';
    dontFixup = true;
  });
in
builtins.mapAttrs
  (name: package:
    if !isLinux || !isWheel package then package
    else if circleOf name != [ ] then partOfCircle name package
    else link name package)
  prev
// {
  # uv2nix asks the set for it.
  autoPatchelfHook = if isLinux then nixpatchHook else pkgs.autoPatchelfHook;
  nixpatchLibraries = [ ];
  nixpatchLock = null;
  mkNixpatchLock = specification:
    let wheels = filter (package: package ? nixpatchWheel) (final.resolveVirtualEnv specification); in
    pkgs.runCommand "nixpatch-wheels.json"
    {
      wheels = builtins.toJSON (map (package: package.nixpatchWheel // { path = "${package}"; }) wheels);
      libraries = builtins.toJSON (map (entry: { inherit (entry) key; path = "${entry.package}"; })
        (offered ++ concatMap (package: offeredTo package.nixpatchWheel.name) wheels));
      passAsFile = [ "wheels" "libraries" ];
      __structuredAttrs = false;
    } "${final.python.pythonOnBuildForHost or final.python}/bin/python3 ${../data/lock_wheels.py} $wheelsPath $librariesPath >$out";
}
