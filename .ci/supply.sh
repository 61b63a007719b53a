#!/usr/bin/env bash
# What the published crates depend on and what they publish: licences, sources and known vulnerabilities (deny.toml),
# the packages as cargo would upload them, and the oldest Rust that they promise (rust-version).
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}

echo "-- licences and sources"
.ci/licences.py

echo "-- bans and advisories"
# The database is a git repository. That it cannot be fetched says nothing about this one, so it does not fail; that it
# was fetched and names a crate of ours does.
log=$target/deny.log
mkdir -p "$target"
if ! command -v cargo-deny >/dev/null; then
    echo "skipped: cargo-deny is not here (cargo install --locked cargo-deny)"
elif cargo-deny --locked check --hide-inclusion-graph licenses bans sources && cargo-deny --locked check advisories >"$log" 2>&1; then
    tail -n 1 "$log"
elif grep -q 'failed to fetch advisory database' "$log"; then
    echo "skipped: $(grep -m 1 -o 'failed to fetch advisory database [^ ]*' "$log") ($(grep -m 1 '^fatal' "$log"))"
else
    cat "$log"
    exit 1
fi

echo "-- packages"
# Working trees with changes are packaged, too: what is judged is the manifest and what the packages leave out.
# cargo checks the plugin against the crates that it has just packaged, but keeps what it unpacked of them by name and
# version. From an earlier run these would be older sources of the same version.
rm -rf "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/accuracy-{core,macros}-[0-9]*
cargo publish --workspace --dry-run --allow-dirty --quiet

echo "-- the oldest Rust"
oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if command -v rustup >/dev/null && rustup toolchain list | grep -q "^$oldest"; then
    toolchain=$(rustup toolchain list | grep -m 1 -o "^$oldest[^ ]*")
    cargo "+$toolchain" check --quiet -p accuracy-core -p accuracy-macros --features accuracy-core/build,accuracy-core/codeobject,accuracy-core/dumps
    echo "accuracy-core and accuracy-macros: Rust $oldest"
elif cargo --version | grep -q " $oldest\."; then
    echo "Rust $oldest is the one that everything else here was built with"
else
    echo "skipped: Rust $oldest is not here (rustup toolchain install $oldest)"
fi
