# Turn Debian's ld.so into what nixpkgs compiles: it searches glibc's own lib directory and reads no ld.so.cache.
# The places in the file come from the derivation; loader.py finds them and tells what they are.
ln -s lib "$out/lib64"
loader=$(readlink -f "$out/lib/ld-linux-x86-64.so.2")
directory=$out/lib/
length=${#directory}
if [ "$length" -gt "$directories_room" ]; then
  echo "$directory is too long for the table of ld.so" >&2
  exit 1
fi

put() { dd of="$loader" bs=1 seek="$1" conv=notrunc 2>/dev/null; }
byte() { printf "\\x$(printf %02x "$1")"; }
uint64() { byte "$1" && printf '\0\0\0\0\0\0\0'; }

# The first of the four keeps its length, which the compiler also put into the code: it becomes a dummy.
printf '/nix/-no-default-dir-/\0%s\0/\0/\0' "$directory" | put "$directories"
{ uint64 22 && uint64 "$length" && uint64 1 && uint64 1; } | put "$lengths"
byte "$length" | put "$longest"
for offset in $caches; do printf '/nix/-no-ldcache' | put "$offset"; done
