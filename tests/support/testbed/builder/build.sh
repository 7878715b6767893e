# Builder of every package of the test store; runs in busybox's sh with nothing but busybox and the seed's patchelf.
#
# From the derivation: $out, $attr, $debs, $inputs (store paths to link to), $glibc, $patch ("1": edit ELF files),
# $seed and $scripts (the directory of this file). <attr> may bring its own last steps as fixup-<attr>.sh.
set -eu -o pipefail
export PATH=$seed/bin

patchelf() {
  "$seed/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" \
    --library-path "$seed/lib/x86_64-linux-gnu:$seed/usr/lib/x86_64-linux-gnu" "$seed/usr/bin/patchelf" "$@"
}

# take DIR TO: merge root/DIR into $out/TO, without the links that lead from one directory to the other
take() {
  [ -d "root/$1" ] || return 0
  mkdir -p "$out/$2"
  (cd "root/$1" && find . -type l) | while read -r link; do
    [ ! -e "$out/$2/$link" ] || rm "root/$1/$link"
  done
  cp -a "root/$1/." "$out/$2/"
  rm -rf "root/${1:?}"
}

# Debian's layout becomes that of a Nix package: bin and lib, no architecture directories.
unpack() {
  mkdir root
  for deb in $debs; do dpkg-deb -x "$deb" root; done
  for dir in bin sbin usr/bin usr/sbin; do take "$dir" bin; done
  for arch in x86_64-linux-gnu x86_64-linux-musl; do
    take "lib/$arch" lib
    take "usr/lib/$arch" lib
  done
  for dir in lib32 usr/lib32 lib usr/lib; do take "$dir" lib; done
  chmod -R u+w "$out"
}

# Links into the file system that Debian has become links into this package, or go.
# (An absolute one may well resolve on the machine that builds: that does not make it good.)
relink() {
  find "$out" -type l | while read -r link; do
    case $(readlink "$link") in
      /nix/*) continue ;;
      /*) ;;
      *) [ ! -e "$link" ] || continue ;;
    esac
    name=$(basename "$(readlink "$link")")
    if [ "$out/lib/$name" != "$link" ] && [ -e "$out/lib/$name" ]; then
      ln -sf "$out/lib/$name" "$link"
    else
      rm "$link"
    fi
  done
}

is_elf() { [ "$(head -c 4 "$1" | od -An -tx1)" = " 7f 45 4c 46" ]; }

# search_path FILE: the directories that have what FILE needs, in the order of first use
search_path() {
  path=
  for soname in $(patchelf --print-needed "$1"); do
    for package in $out $inputs; do
      [ -e "$package/lib/$soname" ] || continue
      case ":$path:" in *":$package/lib:"*) ;; *) path=${path:+$path:}$package/lib ;; esac
      break
    done
  done
  echo "$path"
}

link_to_inputs() {
  find "$out" -type f ! -name '*.py' ! -name '*.whl' | while read -r file; do
    is_elf "$file" || continue
    path=$(search_path "$file" 2>/dev/null) || continue # static
    [ -z "$path" ] || patchelf --set-rpath "$path" "$file"
    case $file in
      *.so | *.so.*) ;;
      *) patchelf --set-interpreter "$glibc/lib/ld-linux-x86-64.so.2" "$file" ;;
    esac
  done
}

cd "$NIX_BUILD_TOP"
unpack
relink
[ -z "$patch" ] || link_to_inputs
[ ! -e "$scripts/fixup-$attr.sh" ] || . "$scripts/fixup-$attr.sh"
