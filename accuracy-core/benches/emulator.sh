#!/usr/bin/env bash
# What emulation costs, in one run on one machine: operations per second of single instructions, then the whole matrix of
# the package `kernels` on the host and emulated for both architectures, each as often as the first argument says (3).
# Needs the compiler that kernels/install-compiler.sh installs. Prints the median of each and its ratio to the host's.
set -euo pipefail
cd "$(dirname "$0")/../.."
repeats=${1:-3}

cargo bench -q -p accuracy-core --features emulate --bench emulator
cargo build -q --release -p cargo-accuracy

matrix() { target/release/cargo-accuracy -p kernels --no-lint "$@" >/dev/null 2>&1; }

median() { # the seconds of a matrix with these options
    matrix "$@" # builds what the timed runs find
    TIMEFORMAT=%R
    for _ in $(seq "$repeats"); do
        { time matrix "$@"; } 2>&1
    done | sort -n | sed -n "$(((repeats + 1) / 2))p"
}

host=$(median --arch host)
printf '%-20s %8.1f s\n' host "$host"
for arch in gfx950 gfx942; do
    seconds=$(median --arch "$arch" --emulate)
    printf '%-20s %8.1f s %6.2f of the host\n' "$arch, emulated" "$seconds" "$(awk "BEGIN { print $seconds / $host }")"
done
