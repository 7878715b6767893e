# shellcheck shell=bash
# nixpatchHook: link the wheels in the outputs of a build against the libraries of its host inputs.
#
# Runs in postFixup, or where a phase calls `nixpatchPatch [PATH...]`. Attributes of the derivation:
#   dontNixpatch            do nothing, unless a phase calls nixpatchPatch
#   nixpatchPython          the Python that will load the tree, or its package [bin/python3 of a host input, then of PATH]
#   nixpatchFlags           more options for nixpatch; nixpatchFlagsArray for options with spaces
#   nixpatchIgnoreMissing   globs of sonames that may be missing
#   nixpatchStrict          fail if an optional part of a wheel lacks a library, too
#   runtimeDependencies     packages whose libraries are opened by name: every file gets their directories
#   appendRunpaths          directories to append to the search path of every file
#
# It also takes what derivations say to autoPatchelfHook: autoPatchelfIgnoreMissingDeps, addAutoPatchelfSearchPath,
# autoPatchelf [PATH...], autoPatchelfLibs, and, where that hook is not among the inputs, dontAutoPatchelf.

# Without declare: stdenv sources this file in a function, where declare would make them local.
nixpatchLibs=()
nixpatchSites=()
nixpatchHostPython=
nixpatchDone=
nixpatchSaved=

# Sourced by stdenv for the platforms of the input: -1 and 0 for nativeBuildInputs. Without strictDeps the hooks of
# every input see all inputs.
if [ -n "${strictDeps-}" ] && [ "${hostOffset--1} ${targetOffset-0}" != "-1 0" ]; then
  echo "nixpatchHook is among the wrong inputs: it runs while building, so put it into nativeBuildInputs" >&2
  if [ -z "${IN_NIX_SHELL-}" ]; then exit 1; fi
fi

# nixpatchHasLibraries DIR: whether it has shared libraries; --lib refuses a directory without any
nixpatchHasLibraries() {
  local file
  for file in "$1"/*.so "$1"/*.so.*; do
    # libc.so and others may be linker scripts.
    if [ -f "$file" ] && [ -r "$file" ] && nixpatchIsElf "$file"; then return 0; fi
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
  nixpatchGatherSites "$1"
}

# nixpatchGatherSites PREFIX: a wheel in a store path of its own (buildPythonPackage, pyproject.nix) has its libraries
# in site-packages
nixpatchGatherSites() {
  local site
  for site in "$1"/lib/python3*/site-packages; do
    if [ -d "$site" ] && [ -n "$(find -L "$site" -name '*.so*' -type f -print -quit 2>/dev/null)" ]; then
      nixpatchSites+=("$site")
    fi
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

# nixpatchHasWork PATH: whether it has a dist or an ELF file; dist, dev, doc and man often have neither
nixpatchHasWork() {
  [ -e "$1" ] || return 1
  if [ -n "$(find "$1" -type d -name '*.dist-info' -print -quit)" ]; then return 0; fi
  local file
  while IFS= read -r -d '' file; do
    if nixpatchIsElf "$file"; then return 0; fi
  done < <(find "$1" -type f -size +3c -print0)
  return 1
}

# nixpatchIsElf FILE: whether it begins with the ELF magic
nixpatchIsElf() {
  local magic=
  LC_ALL=C IFS= read -r -d '' -n 4 magic <"$1" || true
  [ "$magic" = $'\x7fELF' ]
}

# nixpatchOutputs: put the outputs with work into nixpatchTrees, but not debug, whose files have no needs
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
    if [ "$name" != debug ] && nixpatchHasWork "$path"; then nixpatchTrees+=("$path"); fi
  done
}

# nixpatchPatch [OPTION...] [PATH...]: patch the paths, by default all outputs
nixpatchPatch() {
  local -a nixpatchWordsOf=() nixpatchTrees=() arguments=()
  local word directory
  # --pure is needed in a development shell, where nixpatch would search the whole store.
  arguments=(--pure --jobs "${NIX_BUILD_CORES:-1}")
  # An output holds what it refers to; a venv that is patched in a shell needs roots.
  if [ -z "${IN_NIX_SHELL-}" ]; then arguments+=(--no-gc-roots); fi
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
  if [ ${#nixpatchTrees[@]} -eq 0 ]; then
    echo "nixpatchHook: no output has an ELF file or a *.dist-info: nothing to link" >&2
    return 0
  fi

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
  if ! nixpatchIsBesideAutoPatchelf; then
    # The real hook gathers directories of build tools in these.
    for directory in ${autoPatchelfLibs+"${autoPatchelfLibs[@]}"} ${extraAutoPatchelfLibs+"${extraAutoPatchelfLibs[@]}"}; do
      if nixpatchHasLibraries "$directory"; then arguments+=(--lib "$directory"); fi
    done
  fi
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
  nixpatchWords autoPatchelfIgnoreMissingDeps
  for word in ${nixpatchWordsOf+"${nixpatchWordsOf[@]}"}; do
    if [ "$word" = 1 ]; then word='*'; fi # true
    arguments+=(--ignore-missing "$word")
  done
  if [ -n "${nixpatchStrict-}" ]; then arguments+=(--strict); fi
  nixpatchWords nixpatchFlags
  arguments+=(${nixpatchWordsOf+"${nixpatchWordsOf[@]}"})
  nixpatchWords nixpatchFlagsArray
  arguments+=(${nixpatchWordsOf+"${nixpatchWordsOf[@]}"})

  NIX_BUILD_TOP=${NIX_BUILD_TOP:-$PWD} @nixpatch@/bin/nixpatch patch "${arguments[@]}" -- "${nixpatchTrees[@]}"
}

# nixpatchHasRecord: whether an output has an installed dist
nixpatchHasRecord() {
  local -a nixpatchWordsOf=() nixpatchTrees=()
  nixpatchOutputs
  [ ${#nixpatchTrees[@]} -gt 0 ] && [ -n "$(find "${nixpatchTrees[@]}" -path '*.dist-info/RECORD' -print -quit)" ]
}

# strip breaks libraries that auditwheel has edited, and RECORD has the hashes of the files as they were installed: for
# wheels neither strip nor patchelf --shrink-rpath runs, unless the derivation sets dontStrip or dontPatchELF to false.
nixpatchPreFixup() {
  if [ -n "${dontNixpatch-}" ] || ! nixpatchHasRecord; then return 0; fi
  if [ -z "${dontStrip+set}" ]; then dontStrip=1; fi
  if [ -z "${dontPatchELF+set}" ]; then dontPatchELF=1; fi
  if [ -z "$dontStrip" ]; then nixpatchSave; fi
}

# nixpatchSave: keep copies of the ELF files, in case strip breaks them
nixpatchSave() {
  local -a nixpatchWordsOf=() nixpatchTrees=()
  local file
  nixpatchOutputs
  nixpatchSaved=$(mktemp -d)
  while IFS= read -r -d '' file; do
    if ! nixpatchIsElf "$file"; then continue; fi
    mkdir -p "$nixpatchSaved${file%/*}"
    cp -p --reflink=auto "$file" "$nixpatchSaved$file"
  done < <(find "${nixpatchTrees[@]}" -type f -size +3c -print0)
}

# nixpatchUnbreak: put the files back that no loader can map any more
nixpatchUnbreak() {
  if [ -z "$nixpatchSaved" ]; then return 0; fi
  local saved file
  while IFS= read -r -d '' saved; do
    file=${saved#"$nixpatchSaved"}
    if [ ! -f "$file" ] || cmp -s "$saved" "$file"; then continue; fi
    if @nixpatch@/bin/nixpatch elf "$file" >/dev/null 2>&1; then continue; fi
    if ! @nixpatch@/bin/nixpatch elf "$saved" >/dev/null 2>&1; then continue; fi
    echo "nixpatchHook: strip broke $file: it is left unstripped" >&2
    cp -fp "$saved" "$file"
  done < <(find "$nixpatchSaved" -type f -print0)
  rm -rf "$nixpatchSaved"
  nixpatchSaved=
}

# In postFixup, after strip, patchelf --shrink-rpath and patch-shebangs. As the build itself has changed files,
# --accept-modified describes them in RECORD as they are now.
nixpatchPostFixup() {
  nixpatchUnbreak
  if [ -n "${dontNixpatch-}" ] || [ -n "$nixpatchDone" ]; then return 0; fi
  if [ -n "${dontAutoPatchelf-}" ]; then
    if ! nixpatchIsBesideAutoPatchelf; then return 0; fi
  elif nixpatchIsBesideAutoPatchelf; then
    echo "nixpatchHook: autoPatchelfHook would replace the search paths: set dontAutoPatchelf" >&2
  fi
  nixpatchPatch --accept-modified
}

# nixpatchIsBesideAutoPatchelf: whether autoPatchelfHook itself is among the inputs
nixpatchIsBesideAutoPatchelf() {
  declare -F autoPatchelf >/dev/null && [[ $(declare -f autoPatchelf) != *nixpatchPatch* ]]
}

# The functions of autoPatchelfHook, for derivations that were written for it.
if ! declare -F autoPatchelf >/dev/null; then
  # autoPatchelf [--no-recurse] [--] [PATH...]
  autoPatchelf() {
    while [[ ${1-} == --* ]]; do shift; done
    nixpatchPatch --accept-modified "$@"
  }
fi
if ! declare -F addAutoPatchelfSearchPath >/dev/null; then
  # addAutoPatchelfSearchPath [--no-recurse] [--] DIR...
  addAutoPatchelfSearchPath() {
    local -a depth=()
    local directory
    while [[ ${1-} == --* ]]; do
      if [ "$1" = --no-recurse ]; then depth=(-maxdepth 1); fi
      shift
    done
    while IFS= read -r -d '' directory; do extraAutoPatchelfLibs+=("$directory"); done < <(
      find "$@" ${depth+"${depth[@]}"} ! -type d \( -name '*.so' -o -name '*.so.*' \) -printf '%h\0' | sort -zu
    )
  }
fi

preFixupHooks+=(nixpatchPreFixup)
postFixupHooks+=(nixpatchPostFixup)
