# The builder of the stand-in stdenv: what a wheel's derivation and a setup hook use of nixpkgs', in its order.
set -euo pipefail
shopt -s inherit_errexit

# With __structuredAttrs nothing but this file says what the derivation holds.
if [ -e .attrs.sh ]; then
  source .attrs.sh
  declare -A outputs
  for name in "${!outputs[@]}"; do export "$name=${outputs[$name]}"; done
fi
getAllOutputNames() {
  if [ -e "$NIX_BUILD_TOP/.attrs.sh" ]; then echo "${!outputs[@]}"; else echo "$outputs"; fi
}

declare -a nativeInputs hostInputs tools
# findInputs ARRAY PACKAGE...: add packages and what they propagate
findInputs() {
  local -n into=$1
  local package
  shift
  for package; do
    case " ${into[*]-} " in *" $package "*) continue ;; esac
    into+=("$package")
    if [ -e "$package/nix-support/propagated-build-inputs" ]; then
      findInputs "${!into}" $(<"$package/nix-support/propagated-build-inputs")
    fi
  done
}
findInputs nativeInputs ${nativeBuildInputs+${nativeBuildInputs[@]}}
findInputs hostInputs ${buildInputs+${buildInputs[@]}} ${propagatedBuildInputs+${propagatedBuildInputs[@]}}
tools=(${initialPath[@]})
pkgsBuildHost=(${nativeInputs+"${nativeInputs[@]}"})
pkgsHostTarget=(${hostInputs+"${hostInputs[@]}"})

# What a hook registers for the platform of an input's host: -1 where the build runs, 0 where the result will.
declare -a buildEnvHooks=() hostEnvHooks=() targetEnvHooks=() preFixupHooks=() fixupOutputHooks=() postFixupHooks=()
addEnvHooks() {
  local -i offset=$1
  shift
  case $offset in
    -1) buildEnvHooks+=("$@") ;;
    0) hostEnvHooks+=("$@") ;;
    1) targetEnvHooks+=("$@") ;;
    *) echo "addEnvHooks: offset $offset?" >&2 && exit 1 ;;
  esac
}

# runHook NAME: the derivation's own text, then the functions in NAMEHooks
runHook() {
  local -n hooks=${1}Hooks
  local hook
  eval "${!1-}"
  for hook in ${hooks+"${hooks[@]}"}; do eval "$hook"; done
}

activate() {
  local hostOffset=$2 targetOffset=$3
  if [ -f "$1/nix-support/setup-hook" ]; then source "$1/nix-support/setup-hook"; fi
}

PATH=
for package in ${nativeInputs+"${nativeInputs[@]}"} "${tools[@]}"; do PATH+=${PATH:+:}$package/bin; done
export PATH
for package in ${nativeInputs+"${nativeInputs[@]}"}; do activate "$package" -1 0; done
for package in ${hostInputs+"${hostInputs[@]}"}; do activate "$package" 0 1; done
# As in nixpkgs: without strictDeps every hook sees every input.
native=(${nativeInputs+"${nativeInputs[@]}"})
host=(${hostInputs+"${hostInputs[@]}"})
if [ -z "${strictDeps-}" ]; then native+=(${host+"${host[@]}"}) host=("${native[@]}"); fi
for hook in ${buildEnvHooks+"${buildEnvHooks[@]}"}; do for package in "${native[@]}"; do "$hook" "$package"; done; done
if [ -z "${strictDeps-}" ]; then hostEnvHooks+=(${targetEnvHooks+"${targetEnvHooks[@]}"}); fi
for hook in ${hostEnvHooks+"${hostEnvHooks[@]}"}; do for package in "${host[@]}"; do "$hook" "$package"; done; done

# As the setup hook of nixpkgs' Python does for every input of a Python package.
export PYTHONPATH=
for package in "${native[@]}" ${host+"${host[@]}"}; do
  for directory in "$package"/lib/python3*/site-packages; do
    if [ -d "$directory" ] && [ ! -e "$package/bin/python3" ]; then PYTHONPATH+=${PYTHONPATH:+:}$directory; fi
  done
done

elfFiles() {
  find "$1" -type f -size +3c | while IFS= read -r file; do
    if LC_ALL=C grep -q $'^\x7fELF' <(head -c 4 "$file"); then echo "$file"; fi
  done
}

shrink() {
  local file
  while IFS= read -r file; do patchelf --shrink-rpath "$file" || true; done < <(elfFiles "$prefix")
}
fixupOutputHooks+=('if [ -z "${dontPatchELF-}" ]; then shrink; fi')

# Debian's strip, brought along with its libraries: there is none in the test store.
strip() { "$loader" --library-path "$stripTool/lib" "$stripTool/bin/strip" "$@"; }
stripAll() {
  local file
  while IFS= read -r file; do strip -S "$file" || true; done < <(elfFiles "$prefix")
}
fixupOutputHooks+=('if [ -z "${dontStrip-}" ] && [ -n "${stripTool-}" ]; then stripAll; fi')

patchShebangs() {
  local file
  while IFS= read -r -d '' file; do
    if [ "$(head -c 11 "$file" | tr -d '\0')" = '#!/bin/bash' ]; then sed -i "1s|/bin/bash|$builder|" "$file"; fi
  done < <(find "$prefix" -type f -perm -0100 -print0)
}
fixupOutputHooks+=('if [ -z "${dontPatchShebangs-}" ]; then patchShebangs; fi')

unpackPhase() {
  runHook preUnpack
  cp "$src" "./${src#*-}"
  runHook postUnpack
}

fixupPhase() {
  runHook preFixup
  local output prefix hook
  for output in $(getAllOutputNames); do
    prefix=${!output}
    for hook in "${fixupOutputHooks[@]}"; do eval "$hook"; done
  done
  if [ -n "${propagatedBuildInputs-}" ]; then
    mkdir -p "$out/nix-support"
    echo "${propagatedBuildInputs[@]}" >"$out/nix-support/propagated-build-inputs"
  fi
  runHook postFixup
}

cd "$NIX_BUILD_TOP"
export HOME=/homeless-shelter NIX_BUILD_CORES=${NIX_BUILD_CORES:-1}
for phase in unpackPhase installPhase fixupPhase; do
  echo "phase $phase"
  if [ -n "${!phase-}" ]; then eval "${!phase}"; else "$phase"; fi
done
