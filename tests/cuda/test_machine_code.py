"""What nvcc makes of the kernels, for every architecture: read off ptxas' report and off the object file."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from kernels import CSRC
from nvcc import ARCHITECTURES, compile_sources

MAX_SMALL_IMAGE = 84 * 84 * 3  # bytes of dynamic shared memory, kMaxResolution in resize_plan.h
KERNELS = {
    "resample": {"fill_taps": 0, "resize_images": 0, "degrade_images": MAX_SMALL_IMAGE},
    "dispatch": {"scatter": 0},
}
"""The kernels of each file, and the shared memory that they are launched with."""


class Compiled(NamedTuple):
    object_file: Path
    report: str


@pytest.fixture(scope="module", params=KERNELS)
def compiled(request: pytest.FixtureRequest, cuda_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    object_file = tmp_path_factory.mktemp("nvcc") / f"{request.param}.o"
    source = CSRC / "cuda" / f"{request.param}.cu"
    report = compile_sources(cuda_home, [source], object_file, "-c", "-Xptxas", "-v")
    return Compiled(object_file, report)


REPORT = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<architecture>\d+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def test_no_spills_no_local_memory_and_little_shared_memory(compiled: Compiled) -> None:
    kernels = KERNELS[compiled.object_file.stem]
    seen = set()
    for found in REPORT.finditer(compiled.report):
        kernel = next(name for name in kernels if re.search(rf"\d{name}E", found["name"]))
        seen.add((kernel, found["architecture"]))
        assert found["stack"] == found["stores"] == found["loads"] == "0", found[0]
        static = re.search(r"(\d+) bytes smem", found["rest"])
        assert (int(static[1]) if static else 0) + kernels[kernel] <= 48 << 10, found[0]
    assert seen == {(kernel, architecture) for kernel in kernels for architecture in ARCHITECTURES}


def test_object_file_has_machine_code_for_each_architecture_and_ptx(compiled: Compiled, cuobjdump: str) -> None:
    def list_parts(option: str) -> list[str]:
        command = [cuobjdump, option, str(compiled.object_file)]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return re.findall(r"sm_(\d+)\.(?:cubin|ptx)", listed)

    assert sorted(list_parts("--list-elf"), key=int) == ARCHITECTURES
    assert list_parts("--list-ptx") == ARCHITECTURES[:1]
