"""Compiles for GPUs, as cmake/Cuda.cmake does."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kernels import CSRC

CMAKE = CSRC.parent / "cmake" / "Cuda.cmake"
ARCHITECTURES: list[str] = re.findall(r"set\(BTNET_CUDA_ARCHITECTURES ([\d ]+) CACHE", CMAKE.read_text())[0].split()


def compile_sources(
    cuda_home: Path, sources: Sequence[Path], output: Path, *options: str, architectures: Sequence[str] = ARCHITECTURES
) -> str:
    """Compile to PTX of the oldest architecture, and from it to machine code of each; what the compilers said."""
    oldest = f"compute_{ARCHITECTURES[0]}"
    codes = ",".join([oldest, *(f"sm_{architecture}" for architecture in architectures)])
    flags = ["-std=c++17", "-O3", "-fmad=false", "--threads", "2", f"-gencode=arch={oldest},code=[{codes}]"]
    flags += ["-Werror", "all-warnings", "-Xcompiler=-fPIC,-Wall,-Wextra,-Werror"]
    includes = [f"-I{CSRC}", f"-I{CSRC / 'include'}"]
    command = [cuda_home / "bin" / "nvcc", *flags, *options, *includes, *sources, "-o", output]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def build_library(cuda_home: Path, sources: Sequence[Path], library: Path, *, architectures: Sequence[str]) -> Path:
    """Build a shared library that brings its own CUDA runtime, as the module _cuda does."""
    compile_sources(cuda_home, sources, library, "-shared", "-cudart=static", architectures=architectures)
    return library
