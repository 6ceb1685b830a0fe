"""The sources of the GPU path on the CPU: builds them with g++ and the emulator in place of nvcc and of a device."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kernels import CSRC, HERE, SANITIZED, SOURCES

from command_line import succeed

_EMULATOR = "emulator/block.cc", "emulator/fiber.cc", "emulated_runtime.cc", "emulated_work.cc"
EMULATOR = [HERE / name for name in _EMULATOR]
KERNELS = [*SOURCES, *EMULATOR, HERE / "faulty_kernels.cu"]
# Contraction off, as with nvcc's -fmad=false.
FLAGS = [
    "-std=c++17",
    "-O1",
    "-g1",
    "-fPIC",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-ffp-contract=off",
]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fsanitize-sections=emulated_shared"]


def build(
    library: Path,
    includes: Sequence[Path],
    *,
    sources: Sequence[Path] = KERNELS,
    links: Sequence[Path] = (),
    sanitize: bool = False,
) -> Path:
    """Compile sources into a shared library, .cu files with the emulator in place of nvcc.

    includes: folders of headers that are not ours, CUDA's among them. links: libraries that it needs.
    """
    flags = [*FLAGS, *(SANITIZE if sanitize else []), f"-I{CSRC}", f"-I{CSRC / 'include'}", f"-I{HERE}"]
    system = [flag for folder in includes for flag in ("-isystem", folder)]
    objects = []
    for source in sources:
        language = ["-x", "c++", "-include", HERE / "emulator" / "emulator.h"] if source.suffix == ".cu" else []
        objects.append(library.with_name(f"{source.stem}.o"))
        succeed("g++", *flags, *system, *language, "-c", source, "-o", objects[-1])
    succeed("g++", *flags, "-shared", *objects, *links, "-o", library)
    return library


def run_sanitized(library: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python with AddressSanitizer, which has to be loaded before anything else."""
    # Before libstdc++ is loaded, AddressSanitizer does not find what throws exceptions.
    libraries = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}",
        SANITIZED: str(library),
    }
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)
