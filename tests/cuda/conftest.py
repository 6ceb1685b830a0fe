"""Fixtures for the tests of the CUDA kernels: nvcc, and the kernels as the emulator runs them."""

import os
import shutil
import sysconfig
from pathlib import Path
from typing import NoReturn

import emulated
import pytest

WHEELS = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13"  # where nvidia-cuda-nvcc and its like are installed


def give_up(reason: str) -> NoReturn:
    """Skip, or fail where $BTNET_REQUIRE_NVCC is 1."""
    if os.environ.get("BTNET_REQUIRE_NVCC") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


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
    give_up("no CUDA toolkit: set CUDA_HOME")


@pytest.fixture(scope="session")
def cuobjdump() -> str:
    """The program that takes apart what nvcc makes; skips where there is none."""
    found = shutil.which("cuobjdump") or shutil.which("cuobjdump", path=str(WHEELS / "bin"))
    return found or give_up("no cuobjdump: pip install nvidia-cuda-cuobjdump")


@pytest.fixture(scope="session")
def sanitized_library(cuda_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels with AddressSanitizer and UBSan, for processes that emulated.run_sanitized() starts."""
    return emulated.build(tmp_path_factory.mktemp("sanitized") / "kernels.so", [cuda_home / "include"], sanitize=True)


@pytest.fixture(scope="session")
def emulated_kernels(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> emulated.Kernels:
    """The kernels, compiled for the emulator; in a process of run_sanitized() those that it was given."""
    if library := os.environ.get(emulated.SANITIZED):
        return emulated.Kernels.load(Path(library))
    include = request.getfixturevalue("cuda_home") / "include"
    return emulated.Kernels.load(emulated.build(tmp_path_factory.mktemp("emulated") / "kernels.so", [include]))


@pytest.fixture(params=emulated.ORDERS)
def kernels(emulated_kernels: emulated.Kernels, request: pytest.FixtureRequest) -> emulated.Kernels:
    """The kernels, with threads in one order after the other."""
    emulated_kernels.set_order(emulated.ORDERS[request.param])
    return emulated_kernels
