#!/bin/sh
# Builds the HIP kernels for AMD GPUs, on a machine that needs none:
#
#   libkernels_gfx942.so, libkernels_gfx950.so     one architecture each, plain bundles
#   libkernels_gfx942-gfx950.so                    both, in compressed bundles
#   gemm_bf16_gfx950.co                            a bare code object, as hipModuleLoad takes it
#
# With ROCm 6.4 or later on PATH (HIPCXX, or hipcc) that is all it takes. Without it, Debian's packages do:
#
#   kernels/build-gpu.sh --install     installs them with apt-get (needs root)
#
# usage: kernels/build-gpu.sh [--install] [OUT]     OUT is target/kernels by default
set -eu

packages="clang-22 clang-tools-22 lld-22 llvm-22 libamdhip64-dev rocm-device-libs g++"
llvm=/usr/lib/llvm-22/bin
bitcode=/usr/lib/x86_64-linux-gnu/amdgcn/bitcode

here=$(cd "$(dirname "$0")" && pwd)
sources=$here/src/hip
out=
for argument; do
    case $argument in
        --install) apt-get update -q >/dev/null && apt-get install --yes -q --no-install-recommends $packages ;;
        -*) echo "usage: $0 [--install] [OUT]" >&2; exit 2 ;;
        *) out=$argument ;;
    esac
done
out=${out:-${CARGO_TARGET_DIR:-$here/../target}/kernels}
mkdir -p "$out"
out=$(cd "$out" && pwd)

# The device libraries of Debian's ROCm 5.2 know neither these processors nor code object version 6, which clang 22
# writes. Each is a constant in a bitcode file of its own. clang 22 also links two files less than these libraries
# were made for: hip.bc, which has __atomic_work_item_fence, and the one with __oclc_daz_opt; both join the
# processor's file, as that one is always linked.
add_missing_bitcode() {
    mkdir -p "$out/bitcode"
    cp "$bitcode"/*.bc "$out/bitcode/"
    for processor in 942=9402 950=9500; do
        {
            "$llvm/llvm-dis" -o - "$bitcode/hip.bc"
            echo "@__oclc_ISA_version = $constant i32 ${processor#*=}"
            echo "@__oclc_daz_opt = $constant i8 0"
        } | "$llvm/llvm-as" -o "$out/bitcode/oclc_isa_version_${processor%=*}.bc" -
    done
    "$llvm/llvm-dis" -o - "$bitcode/oclc_abi_version_500.bc" | sed 's/i32 500/i32 600/' |
        "$llvm/llvm-as" -o "$out/bitcode/oclc_abi_version_600.bc" -
}
constant="linkonce_odr protected local_unnamed_addr addrspace(4) constant"

flags="-O3 -std=c++17 -fPIC -fvisibility=hidden -Wall -Wextra"
if compiler=$(command -v "${HIPCXX:-hipcc}"); then
    link=
elif [ -x "$llvm/clang++" ] && [ -x "$llvm/clang-offload-bundler" ] && [ -x "$llvm/lld" ] &&
    [ -x "$llvm/llvm-as" ] && [ -d "$bitcode" ] &&
    [ -f /usr/include/hip/hip_runtime.h ]; then
    compiler=$llvm/clang++
    add_missing_bitcode
    # These headers ask the compiler for the wavefront size by a macro that LLVM 22 no longer has.
    flags="$flags --rocm-path=/usr --rocm-device-lib-path=$out/bitcode -D__HIP_PLATFORM_AMD__"
    flags="$flags -D__AMDGCN_WAVEFRONT_SIZE=64 -Wno-unused-parameter"
    link="--rocm-path=/usr"
else
    echo "error: no compiler for AMD GPUs: neither hipcc on PATH nor Debian's packages." >&2
    echo "  $0 --install    runs: apt-get install $packages" >&2
    exit 1
fi
echo "compiler: $("$compiler" --version | grep -i -m 1 'clang version') ($compiler)"

# build NAME FLAG...: every source, as many at a time as there are processors, then one library.
build() {
    name=$1
    shift
    objects=$out/objects/$name
    mkdir -p "$objects"
    ls "$sources"/*.hip | xargs -P "$(nproc)" -I{} sh -c '
        source=$1; objects=$2; compiler=$3; shift 3
        exec "$compiler" -x hip "$@" -c "$source" -o "$objects/$(basename "$source" .hip).o"
    ' sh {} "$objects" "$compiler" $flags "$@"
    "$compiler" --hip-link $link "$@" -shared -Wl,--no-undefined "$objects"/*.o -o "$out/$name"
    echo "$out/$name"
}

build libkernels_gfx942.so --offload-arch=gfx942
build libkernels_gfx950.so --offload-arch=gfx950
build libkernels_gfx942-gfx950.so --offload-arch=gfx942 --offload-arch=gfx950 --offload-compress
"$compiler" -x hip $flags --offload-arch=gfx950 --cuda-device-only --no-gpu-bundle-output \
    "$sources/gemm_bf16.hip" -o "$out/gemm_bf16_gfx950.co"
echo "$out/gemm_bf16_gfx950.co"
