# Undo what Debian changed in Python: dist-packages, fixed paths, and zlib and expat linked into the interpreter.
version=3.11
library=$out/lib/python$version
ln -sf "python$version" "$out/bin/python3"
ln -sf "python$version" "$out/bin/python"
take usr/share/python-wheels share/python-wheels
mkdir -p "$library/site-packages"
sed -i "s#/usr/share/python-wheels#$out/share/python-wheels#g" "$library/ensurepip/__init__.py"
sed -i "/prefix_scheme = /s#'posix_local'#'posix_prefix'#" "$library/sysconfig.py"

# `site` is frozen into the binary, so editing site.py would not help. (nixpkgs has a sitecustomize, too.)
rm -f "$library/sitecustomize.py"
cat >"$library/sitecustomize.py" <<'PYTHON'
import site
import sys

if sys.prefix == sys.base_prefix:
    sys.path[:] = [entry for entry in sys.path if not entry.endswith("/dist-packages")]
    site.addsitedir(f"{sys.prefix}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
PYTHON

# nixpkgs' interpreter does not load libz and libexpat at start. A soname that is loaded satisfies every later need
# of it, so an unpatched wheel would find libz.so.1 by accident: give the interpreter copies under other sonames.
for name in libz libexpat; do
  soname=$name.so.1
  private=$name-python.so.1
  for package in $inputs; do
    [ ! -e "$package/lib/$soname" ] || cat "$package/lib/$soname" >"$out/lib/$private"
  done
  chmod 755 "$out/lib/$private"
  patchelf --set-soname "$private" "$out/lib/$private"
  for file in "$out/bin/python$version" "$out"/lib/libpython*.so.* "$library"/lib-dynload/*.so; do
    [ -f "$file" ] && patchelf --print-needed "$file" | grep -qx "$soname" || continue
    patchelf --replace-needed "$soname" "$private" "$file"
    path=$(patchelf --print-rpath "$file")
    case ":$path:" in *":$out/lib:"*) ;; *) patchelf --set-rpath "$path:$out/lib" "$file" ;; esac
  done
done

# Root, which ignores the store's permissions, would write __pycache__ at the first import and make the path invalid.
# So compile everything now, and never look at the time of a source again: Nix sets it to 1. (-B: the modules that
# compileall itself imports would be compiled the usual way, and then be left as they are.)
PYTHONHASHSEED=0 "$out/bin/python3" -B -m compileall -q -j 0 --invalidation-mode unchecked-hash "$library"
