#!/usr/bin/env bash
# What emulation costs, in one run on one machine: operations per second of single instructions, then the whole matrix of
# the package `kernels` on the host and emulated for both architectures, each as often as the first argument says (3).
# Needs the compiler that kernels/install-compiler.sh installs. Prints the median of each and its ratio to the host's.
set -euo pipefail
cd "$(dirname "$0")/../.."
repeats=${1:-3}

cargo bench -q -p accuracy-core --features emulate --bench emulator
cargo build -q --release -p cargo-accuracy
tool=target/release/cargo-accuracy
matrix() { "$tool" -p kernels --no-lint "$@" >/dev/null 2>&1; }
for what in "host" "gfx950 --emulate" "gfx942 --emulate"; do
    # shellcheck disable=SC2086 # the flag is a word of its own
    matrix --arch $what # builds what the timed runs find
    for _ in $(seq "$repeats"); do
        start=$(date +%s.%N)
        # shellcheck disable=SC2086
        matrix --arch $what
        echo "$what,$start,$(date +%s.%N)"
    done
done | awk -F, '
    { seconds[$1] = seconds[$1] " " ($3 - $2); if (!($1 in seen)) { seen[$1] = 1; order[++n] = $1 } }
    END {
        for (i = 1; i <= n; i++) {
            count = split(seconds[order[i]], all, " ")
            for (a = 2; a <= count; a++) for (b = a; b > 1 && all[b] < all[b - 1]; b--) { t = all[b]; all[b] = all[b - 1]; all[b - 1] = t }
            median = all[int((count + 1) / 2)]
            if (i == 1) host = median
            printf "%-20s %8.1f s %6.2f of the host\n", order[i], median, median / host
        }
    }'
