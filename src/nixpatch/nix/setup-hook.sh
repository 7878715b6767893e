# shellcheck shell=bash
# nixpatchHook: links the wheels in a build's outputs against the libraries of its host inputs.
#
# Runs by itself in postFixup, or where a phase calls `nixpatchPatch [PATH...]`. What a derivation may set:
#   dontNixpatch            leave the outputs alone, unless a phase calls nixpatchPatch
#   nixpatchPython          the Python that will load the tree, or its package [bin/python3 of a host input, then of PATH]
#   nixpatchFlags           more options for nixpatch; nixpatchFlagsArray for those with spaces in them
#   nixpatchIgnoreMissing   globs of sonames that may be missing
#   runtimeDependencies     packages whose libraries are opened by name: every file gets their directories
#   appendRunpaths          directories to put last into every file's search path

# No declare: stdenv sources this in a function, where it would make them local.
nixpatchLibs=()
nixpatchHostPython=
nixpatchDone=

# nixpatchHasLibraries DIR: whether there is anything for --lib, which refuses a directory that serves nothing
nixpatchHasLibraries() {
  local file magic
  for file in "$1"/*.so "$1"/*.so.*; do
    [ -f "$file" ] && [ -r "$file" ] || continue
    magic=
    # Four bytes are enough to tell a library from a linker script.
    LC_ALL=C IFS= read -r -d '' -n 4 magic <"$file" || true
    if [ "$magic" = $'\x7fELF' ]; then return 0; fi
  done
  return 1
}

# nixpatchIsHostInput PACKAGE: whether the result may refer to it
nixpatchIsHostInput() {
  # Without strictDeps, stdenv shows every input to every hook. A tool of the build must not serve libraries then.
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
  # Often a link to lib: that would be the same directory under another name.
  [ -L "$1/lib64" ] || nixpatchGatherLib "$1/lib64"
  if [ -z "$nixpatchHostPython" ] && [ -x "$1/bin/python3" ]; then nixpatchHostPython=$1/bin/python3; fi
}

nixpatchGatherLib() {
  local known
  for known in ${nixpatchLibs+"${nixpatchLibs[@]}"}; do
    if [ "$known" = "$1" ]; then return 0; fi
  done
  if nixpatchHasLibraries "$1"; then nixpatchLibs+=("$1"); fi
}

# The platform that the hook's target is, is where the result will run: this hook belongs in nativeBuildInputs.
# shellcheck disable=SC2154
addEnvHooks "$targetOffset" nixpatchGather

# nixpatchWords NAME: put the elements of a variable into nixpatchWordsOf; lists are arrays with
# __structuredAttrs, and strings with spaces in between without
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

# nixpatchOutputs: put the outputs that exist into nixpatchTrees; detached debug information has nothing to link
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

# nixpatchPatch [OPTION...] [PATH...]: patch these, by default all outputs
nixpatchPatch() {
  local -a nixpatchWordsOf=() nixpatchTrees=() arguments=()
  local word directory
  # A shell for development is no build: there, too, only what was named may serve.
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

  # Where a phase before fixup calls this: patchelf --shrink-rpath would drop what is only opened by name, and both
  # would make RECORD wrong.
  dontStrip=1
  dontPatchELF=1

  word=${nixpatchPython:-$nixpatchHostPython}
  if [ -d "$word" ]; then word=$word/bin/python3; fi
  if [ -n "$word" ]; then arguments+=(--python "$word"); fi
  # Outputs serve each other, as they do where autoPatchelfHook patches them.
  if [ ${#nixpatchTrees[@]} -gt 1 ]; then
    for word in "${nixpatchTrees[@]}"; do
      if nixpatchHasLibraries "$word/lib"; then arguments+=(--lib "$word/lib"); fi
    done
  fi
  for directory in ${nixpatchLibs+"${nixpatchLibs[@]}"}; do arguments+=(--lib "$directory"); done
  nixpatchWords runtimeDependencies
  for word in ${nixpatchWordsOf+"${nixpatchWordsOf[@]}"}; do
    # /run/opengl-driver and its like need not exist while building.
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

# In postFixup, because patchelf --shrink-rpath and strip have run by then. They may have changed files that RECORD
# lists: it is the build itself that did, so RECORD may follow.
nixpatchPostFixup() {
  if [ -n "${dontNixpatch-}" ] || [ -n "$nixpatchDone" ]; then return 0; fi
  if declare -F autoPatchelf >/dev/null && [ -z "${dontAutoPatchelf-}" ]; then
    echo "nixpatchHook: autoPatchelfHook is here, too, and replaces search paths: set dontAutoPatchelf" >&2
  fi
  nixpatchPatch --accept-modified
}

postFixupHooks+=(nixpatchPostFixup)
