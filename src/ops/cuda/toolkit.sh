#!/usr/bin/env bash
# Installs what `cargo build --features cuda` needs on a machine without a CUDA toolkit, card or driver, and prints the
# environment to build in:
#
#     eval "$(src/ops/cuda/toolkit.sh [FOLDER])" && cargo build --release --features cuda
#
# It takes NVIDIA's compiler and headers (CUDA 13.0) from their Python packages, and makes link-time stand-ins for the
# driver, cuBLAS and cuRAND: small functions that open the real library at their first call. So the program starts where
# none of them is installed, and says that there is no CUDA. Needs gcc, g++, pip, cargo and x86-64 Linux.
set -euo pipefail

folder=$(realpath -m "${1:-$HOME/.cache/lft-cuda}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$folder/lib64"

if [ ! -e "$folder/.toolkit-13.0.88" ]; then
  python3 -m pip download -q --no-deps -d "$scratch" nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 \
    nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 >&2
  for wheel in "$scratch"/*.whl; do python3 -m zipfile -e "$wheel" "$scratch"; done
  cp -rf "$scratch"/nvidia/cu13/. "$folder/"
  chmod +x "$folder"/bin/* "$folder"/nvvm/bin/*
  touch "$folder/.toolkit-13.0.88"
fi

# candle also compiles products of quantised matrices, which lft never calls; without optimisation they take a quarter of
# the time.
cat >"$folder/bin/nvcc-quick" <<'WRAPPER'
#!/bin/sh
nvcc=$(dirname "$0")/nvcc
for argument in "$@"; do
  case $argument in
    */mmq_gguf/* | */mmvq_gguf.cu | */moe/*) exec "$nvcc" -Xcicc -O0 -Xptxas -O0 --compress-mode=size "$@" ;;
  esac
done
exec "$nvcc" "$@"
WRAPPER
chmod +x "$folder/bin/nvcc-quick"

# The stand-ins' functions are those that cudarc, candle's CUDA bindings, declares.
if [ ! -e "$folder/.stand-ins-1" ]; then
  mkdir -p "$scratch/probe/src"
  touch "$scratch/probe/src/lib.rs"
  printf '[package]\nname="probe"\nversion="0.0.0"\nedition="2021"\n[dependencies]\ncudarc={version="=0.19.10",default-features=false,features=["driver"]}\n' \
    >"$scratch/probe/Cargo.toml"
  (cd "$scratch/probe" && cargo fetch -q) >&2
  sources=$(ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-0.19.10/src | head -1)
  python3 - "$sources" "$scratch" <<'PYTHON'
import pathlib
import re
import sys

sources, scratch = map(pathlib.Path, sys.argv[1:])
# library: bindings, file that is opened, what its functions return where it cannot be (no device, not initialised)
LIBRARIES = {
    "cuda": ("driver", "libcuda.so.1", 100),
    "cublas": ("cublas", "libcublas.so.13", 1),
    "cublasLt": ("cublaslt", "libcublasLt.so.13", 1),
    "curand": ("curand", "libcurand.so.10", 203),
    "nvrtc": ("nvrtc", "libnvrtc.so.13", 11),
}
REGISTERS = "rdi rsi rdx rcx r8 r9 rax".split()

for library, (bindings, file, failure) in LIBRARIES.items():
    text = (sources / bindings / "sys/mod.rs").read_text()
    names = sorted(set(re.findall(r"^\s{8,}fn (\w+)\(", text, re.M)))
    # At the first call of a function its number is on the stack: save the arguments, find the real function, jump there.
    save = "".join(f"movups %xmm{i},{16 * i}(%rsp)\n" for i in range(8))
    restore = re.sub(r"(%xmm\d),(\S+)", r"\2,\1", save)
    assembly = (
        f".data\nlft_table_{library}:\n.text\nlft_go_{library}:\n"
        + "".join(f"push %{r}\n" for r in REGISTERS)
        + f"mov 56(%rsp),%rdi\nsub $128,%rsp\n{save}call lft_find_{library}\nmov %rax,%r11\n{restore}add $128,%rsp\n"
        + "".join(f"pop %{r}\n" for r in reversed(REGISTERS))
        + "add $8,%rsp\njmp *%r11\n"
    )
    for i, name in enumerate(names):
        assembly += (
            f".globl {name}\n.type {name},@function\n{name}: jmp *lft_table_{library}+{8 * i}(%rip)\n"
            f"1: push ${i}\njmp lft_go_{library}\n.data\n.quad 1b\n.text\n"
        )
    lines = "".join(f'"{line}\\n"\n' for line in assembly.split("\n"))
    listed = ",".join(f'"{name}"' for name in names)
    (scratch / f"{library}.c").write_text(f"""#include <dlfcn.h>
asm({lines});
extern void *lft_table_{library}[] __attribute__((visibility("hidden")));
static const char *const names[] = {{{listed}}};
static int missing(void) {{ return {failure}; }}
__attribute__((visibility("hidden"), force_align_arg_pointer)) void *lft_find_{library}(long i) {{
  void *handle = dlopen("{file}", RTLD_NOW | RTLD_GLOBAL);
  if (!handle) handle = dlopen("/usr/local/cuda/lib64/{file}", RTLD_NOW | RTLD_GLOBAL);
  void *function = handle ? dlsym(handle, names[i]) : 0;
  return function ? (lft_table_{library}[i] = function) : (void *)missing;
}}
""")
PYTHON
  for library in cuda cublas cublasLt curand nvrtc; do
    gcc -O2 -fPIC -c "$scratch/$library.c" -o "$scratch/$library.o"
    ar rcs "$folder/lib64/liblft_$library.a" "$scratch/$library.o"
    echo "INPUT($folder/lib64/liblft_$library.a)" >"$folder/lib64/lib$library.so"
  done
  echo "INPUT($folder/lib/libcudart_static.a -ldl -lrt -lpthread)" >"$folder/lib64/libcudart.so"
  touch "$folder/.stand-ins-1"
fi

echo "export CUDA_HOME=$folder NVCC=$folder/bin/nvcc-quick NVCC_CCBIN=g++ CUDARC_CUDA_VERSION=13000 CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}"
