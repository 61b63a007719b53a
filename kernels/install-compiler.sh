#!/bin/sh
# Installs what compiles HIP sources for AMD GPUs on Debian, on a machine that has neither a GPU nor ROCm: clang 22, HIP's
# headers and the device libraries. Needs root. `cargo accuracy` finds them, and prepares the device libraries by itself.
#
# Where ROCm 6.4 or later is installed there is nothing to do: its hipcc is taken (HIPCXX names another one).
set -eu

packages="clang-22 clang-tools-22 lld-22 llvm-22 libamdhip64-dev rocm-device-libs g++"

if compiler=$(command -v "${HIPCXX:-hipcc}"); then
    echo "nothing to install: $compiler is there"
    exit
fi
apt-get update -q >/dev/null
# shellcheck disable=SC2086 # a list of names
apt-get install --yes -q --no-install-recommends $packages
