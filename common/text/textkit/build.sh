#!/bin/sh
# build.sh CARGO Cargo.toml PRIVATE_DIR OUTPUT DEPFILE
# Builds the archive with cargo and writes a depfile that ninja can read. PENSTOCK_CARGO_DIR names a
# cargo target directory shared by several build directories; the default is private.
set -eu
cargo=$1 manifest=$2 private=$3 out=$4 dep=$5
target=${PENSTOCK_CARGO_DIR:-$private/cargo}
# A versioned cargo must find the rustc beside it, not the default one.
case $cargo in
*/*) PATH="$(dirname "$cargo"):$PATH" ;;
esac
CARGO_TARGET_DIR="$target" "$cargo" build --quiet --release --locked --manifest-path "$manifest"
cp "$target/release/libtextkit.a" "$out"
sed "s|^[^:]*:|$out:|" "$target/release/libtextkit.d" > "$dep"
