# shellcheck shell=bash
# nixpatchHook: link the wheels in the outputs of a build against the libraries of its host inputs.
#
# Runs in postFixup, or where a phase calls `nixpatchPatch [PATH...]`. Attributes of the derivation:
#   dontNixpatch            do nothing, unless a phase calls nixpatchPatch
#   nixpatchPython          the Python that will load the tree, or its package [bin/python3 of a host input, then of PATH]
#   nixpatchFlags           more options for nixpatch; nixpatchFlagsArray for options with spaces
#   nixpatchIgnoreMissing   globs of sonames that may be missing
#   runtimeDependencies     packages whose libraries are opened by name: every file gets their directories
#   appendRunpaths          directories to append to the search path of every file

# Without declare: stdenv sources this file in a function, where declare would make them local.
nixpatchLibs=()
nixpatchSites=()
nixpatchHostPython=
nixpatchDone=

# nixpatchHasLibraries DIR: whether it has shared libraries; --lib refuses a directory without any
nixpatchHasLibraries() {
  local file magic
  for file in "$1"/*.so "$1"/*.so.*; do
    [ -f "$file" ] && [ -r "$file" ] || continue
    magic=
    # The ELF magic: libc.so and others may be linker scripts.
    LC_ALL=C IFS= read -r -d '' -n 4 magic <"$file" || true
    if [ "$magic" = $'\x7fELF' ]; then return 0; fi
  done
  return 1
}

# nixpatchIsHostInput PACKAGE: whether the outputs may refer to it
nixpatchIsHostInput() {
  # Without strictDeps, stdenv passes every input to every hook; a build tool must not provide libraries then.
  declare -p pkgsHostTarget >/dev/null 2>&1 || return 0
  local package
  for package in ${pkgsHostHost+"${pkgsHostHost[@]}"} ${pkgsHostTarget+"${pkgsHostTarget[@]}"}; do
    if [ "$package" = "$1" ]; then return 0; fi
  done
  return 1
}

nixpatchGather() {
  nixpatchIsHostInput "$1" || return 0
  nixpatchGatherLib "$1/lib"
  # lib64 is often a link to lib: the same directory under another name.
  [ -L "$1/lib64" ] || nixpatchGatherLib "$1/lib64"
  if [ -z "$nixpatchHostPython" ] && [ -x "$1/bin/python3" ]; then nixpatchHostPython=$1/bin/python3; fi
  # Another wheel in a store path of its own (buildPythonPackage, pyproject.nix) has its libraries in site-packages.
  local site
  for site in "$1"/lib/python3*/site-packages; do
    if [ -d "$site" ] && [ -n "$(find -L "$site" -name '*.so*' -type f -print -quit 2>/dev/null)" ]; then nixpatchSites+=("$site"); fi
  done
}

nixpatchGatherLib() {
  local known
  for known in ${nixpatchLibs+"${nixpatchLibs[@]}"}; do
    if [ "$known" = "$1" ]; then return 0; fi
  done
  if nixpatchHasLibraries "$1"; then nixpatchLibs+=("$1"); fi
}

# The hook belongs into nativeBuildInputs, so its target platform is the one where the outputs run.
# shellcheck disable=SC2154
addEnvHooks "$targetOffset" nixpatchGather

# nixpatchWords NAME: put the elements of a variable into nixpatchWordsOf. A list is an array with
# __structuredAttrs, and a string with spaces without
nixpatchWords() {
  nixpatchWordsOf=()
  local kind
  kind=$(declare -p "$1" 2>/dev/null) || return 0
  case $kind in
    "declare -"*a*" $1="*)
      local -n nixpatchValue=$1
      nixpatchWordsOf=(${nixpatchValue[@]+"${nixpatchValue[@]}"})
      ;;
    *) IFS=$' \t\n' read -r -d '' -a nixpatchWordsOf <<<"${!1-}" || true ;;
  esac
}

# nixpatchOutputs: put the existing outputs into nixpatchTrees, but not debug, whose files have no needs
nixpatchOutputs() {
  nixpatchTrees=()
  local name path
  local -a names=()
  if declare -F getAllOutputNames >/dev/null; then
    read -r -a names <<<"$(getAllOutputNames)"
  else
    nixpatchWords outputs
    names=("${nixpatchWordsOf[@]}")
  fi
  for name in "${names[@]}"; do
    path=${!name}
    if [ "$name" != debug ] && [ -e "$path" ]; then nixpatchTrees+=("$path"); fi
  done
}

# nixpatchPatch [OPTION...] [PATH...]: patch the paths, by default all outputs
nixpatchPatch() {
  local -a nixpatchWordsOf=() nixpatchTrees=() arguments=()
  local word directory
  # --pure is needed in a development shell, where nixpatch would search the whole store.
  arguments=(--pure --no-gc-roots --jobs "${NIX_BUILD_CORES:-1}")
  for word; do
    case $word in
      -*) arguments+=("$word") ;;
      *) nixpatchTrees+=("$word") ;;
    esac
  done
  if [ ${#nixpatchTrees[@]} -eq 0 ]; then
    nixpatchOutputs
    nixpatchDone=1
  fi
  if [ ${#nixpatchTrees[@]} -eq 0 ]; then return 0; fi

  # For a phase before fixup: patchelf --shrink-rpath would drop directories of libraries that are opened by name,
  # and both tools would make RECORD wrong.
  dontStrip=1
  dontPatchELF=1

  word=${nixpatchPython:-$nixpatchHostPython}
  if [ -d "$word" ]; then word=$word/bin/python3; fi
  if [ -n "$word" ]; then arguments+=(--python "$word"); fi
  # Outputs provide libraries for each other, as with autoPatchelfHook.
  if [ ${#nixpatchTrees[@]} -gt 1 ]; then
    for word in "${nixpatchTrees[@]}"; do
      if nixpatchHasLibraries "$word/lib"; then arguments+=(--lib "$word/lib"); fi
    done
  fi
  for directory in ${nixpatchLibs+"${nixpatchLibs[@]}"} ${nixpatchSites+"${nixpatchSites[@]}"}; do
    arguments+=(--lib "$directory")
  done
  nixpatchWords runtimeDependencies
  for word in ${nixpatchWordsOf+"${nixpatchWordsOf[@]}"}; do
    # Directories such as /run/opengl-driver need not exist during the build.
    if nixpatchHasLibraries "$word/lib"; then arguments+=(--lib "$word/lib"); fi
    arguments+=(--append-rpath "$word/lib")
  done
  nixpatchWords appendRunpaths
  for word in ${nixpatchWordsOf+"${nixpatchWordsOf[@]}"}; do arguments+=(--append-rpath "$word"); done
  nixpatchWords nixpatchIgnoreMissing
  for word in ${nixpatchWordsOf+"${nixpatchWordsOf[@]}"}; do arguments+=(--ignore-missing "$word"); done
  nixpatchWords nixpatchFlags
  arguments+=(${nixpatchWordsOf+"${nixpatchWordsOf[@]}"})
  nixpatchWords nixpatchFlagsArray
  arguments+=(${nixpatchWordsOf+"${nixpatchWordsOf[@]}"})

  NIX_BUILD_TOP=${NIX_BUILD_TOP:-$PWD} @nixpatch@/bin/nixpatch patch "${arguments[@]}" -- "${nixpatchTrees[@]}"
}

# In postFixup, after patchelf --shrink-rpath and strip. These may have changed files of RECORD; as the build itself
# did it, --accept-modified updates RECORD.
nixpatchPostFixup() {
  if [ -n "${dontNixpatch-}" ] || [ -n "$nixpatchDone" ]; then return 0; fi
  if declare -F autoPatchelf >/dev/null && [ -z "${dontAutoPatchelf-}" ]; then
    echo "nixpatchHook: autoPatchelfHook would replace the search paths: set dontAutoPatchelf" >&2
  fi
  nixpatchPatch --accept-modified
}

postFixupHooks+=(nixpatchPostFixup)
