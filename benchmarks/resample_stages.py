"""The stages of a resize, measured from inside by a program that is compiled from resample_stages.cc for it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import common

SOURCES = Path(__file__).parents[1] / "csrc"
ISAS = {
    "avx512": ("Avx512", ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vbmi", "-mavx512vnni"]),
    "avx2": ("Avx2", ["-mavx2"]),
}


def stages(simd: str, sizes: Sequence[tuple[int, int]]) -> dict[str, dict[str, dict[str, float]]]:
    """Summaries of the microseconds of the stages of a resize in one of the vector code paths, from side to side."""
    isa, flags = ISAS[simd]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "stages"
        command = ["c++", "-O3", "-DNDEBUG", "-std=c++17", "-ffp-contract=off", *flags]
        command += [f"-I{SOURCES}", f"-I{SOURCES / 'include'}", f"-DISA={isa}"]
        command += [f'-DPASSES="resample/passes_{simd}.cc"', "-o", str(program)]
        command += [str(Path(__file__).with_suffix(".cc")), str(SOURCES / "resample/passes_plain.cc")]
        subprocess.run(command, check=True)
        sides = [str(side) for pair in sizes for side in pair]
        output = subprocess.run([program, *sides], check=True, capture_output=True, text=True).stdout
    names = [f"{source} -> {target}" for source, target in sizes]
    return {
        name: {stage: common.summary(times) for stage, times in json.loads(line).items()}
        for name, line in zip(names, output.splitlines(), strict=True)
    }
