#!/bin/sh
# Builds the launcher of cuBLASLt's GEMM with nvcc: lib/libcublaslt_fp8_sm_90.so. Needs CUDA 12.9 or later.
set -eu
cd "$(dirname "$0")/.."
mkdir -p lib
nvcc -std=c++17 -O2 -arch=sm_90 -cudart shared -Xcompiler -fPIC,-fvisibility=hidden -shared cuda/gemm.cu \
    -lcublasLt -o lib/libcublaslt_fp8_sm_90.so "$@"
