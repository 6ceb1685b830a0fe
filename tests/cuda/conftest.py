"""Fixtures for the tests of the GPU path: nvcc, a GPU, and the kernels as the emulator or the GPU runs them."""

import os
import shutil
import sysconfig
from pathlib import Path

import emulated
import nvcc
import pytest
from kernels import GPU, ORDERS, SANITIZED, SOURCES, EmulatedKernels, Kernels

from btnet_ext import BackendUnavailable, cuda
from btnet_ext.trt_library import Gpu
from missing import give_up

WHEELS = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13"  # where nvidia-cuda-nvcc and its like are installed


@pytest.fixture(scope="session")
def cuda_home() -> Path:
    """The CUDA toolkit: $CUDA_HOME, nvcc's on the PATH, in /usr/local, or the wheels'; skips where there is none."""
    nvcc = shutil.which("nvcc")
    places = [Path(os.environ["CUDA_HOME"])] if "CUDA_HOME" in os.environ else []
    places += [Path(nvcc).resolve().parents[1]] if nvcc else []
    places += [*sorted(Path("/usr/local").glob("cuda*"), reverse=True), WHEELS]
    for place in places:
        if (place / "bin" / "nvcc").is_file() and (place / "include" / "cuda_runtime.h").is_file():
            return place
    return give_up("BTNET_REQUIRE_NVCC", "no CUDA toolkit: set CUDA_HOME")


@pytest.fixture(scope="session")
def cuobjdump() -> str:
    """The program that takes apart what nvcc makes; skips where there is none."""
    found = shutil.which("cuobjdump") or shutil.which("cuobjdump", path=str(WHEELS / "bin"))
    return found or give_up("BTNET_REQUIRE_NVCC", "no cuobjdump: pip install nvidia-cuda-cuobjdump")


@pytest.fixture(scope="session")
def sanitized_library(cuda_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels with AddressSanitizer and UBSan, for processes that emulated.run_sanitized() starts."""
    return emulated.build(tmp_path_factory.mktemp("sanitized") / "kernels.so", [cuda_home / "include"], sanitize=True)


@pytest.fixture(scope="session")
def emulated_kernels(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> EmulatedKernels:
    """The kernels, compiled for the emulator; in a process of run_sanitized() those that it was given."""
    if library := os.environ.get(SANITIZED):
        return EmulatedKernels(Path(library))
    include = request.getfixturevalue("cuda_home") / "include"
    return EmulatedKernels(emulated.build(tmp_path_factory.mktemp("emulated") / "kernels.so", [include]))


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    """The first GPU of this machine, that the module _cuda can use; skips where there is none."""
    try:
        cuda.native().check_device(0)
    except BackendUnavailable as error:
        give_up("BTNET_REQUIRE_GPU", str(error))
    return Gpu(*cuda.native().describe_device(0))


@pytest.fixture(scope="session")
def gpu_kernels(gpu: Gpu, cuda_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """The kernels, compiled for this machine's GPU."""
    library = tmp_path_factory.mktemp("gpu") / "kernels.so"
    architecture = f"{gpu.capability[0]}{gpu.capability[1]}"
    return Kernels(nvcc.build_library(cuda_home, SOURCES, library, architectures=[architecture]))


@pytest.fixture(params=["emulated", GPU])
def unordered_kernels(request: pytest.FixtureRequest) -> Kernels:
    """The kernels, in the emulator and on a GPU."""
    found: Kernels = request.getfixturevalue(f"{request.param}_kernels")
    found.set_order(0)
    return found


@pytest.fixture(params=[*ORDERS, GPU])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    """The kernels, in the emulator with threads in one order after the other, and on a GPU."""
    found: Kernels = request.getfixturevalue("gpu_kernels" if request.param == "gpu" else "emulated_kernels")
    found.set_order(ORDERS.get(request.param, 0))
    return found
