"""The compiled module _cuda: it imports without a driver, and says what is missing."""

import os
import shutil
import subprocess
import sys

import pytest

from btnet_ext import BackendUnavailable, cuda

LOOK = """
import btnet_ext._cuda as module
try:
    module.check_device(0)
except Exception as error:
    print(type(error).__name__, error)
else:
    print("usable")
"""


@pytest.fixture
def module() -> object:
    """The module, or a skip where there was no nvcc to build it with."""
    try:
        return cuda.native()
    except BackendUnavailable as error:
        if shutil.which("nvcc") is not None or os.environ.get("BTNET_REQUIRE_NVCC") == "1":
            raise
        pytest.skip(str(error))


def test_without_a_driver_it_is_imported_and_says_so(module: object) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # where there is a GPU, it is hidden
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("BackendUnavailable device 'cuda:0' is not available: ")
    # 35: no driver, or an old one; 100: no device.
    assert done.stdout.rstrip().endswith(("error 35)", "error 100)"))


def test_it_needs_no_library_of_cuda(module: object) -> None:
    libraries = subprocess.run(["ldd", module.__file__], capture_output=True, text=True, check=True).stdout  # type: ignore[attr-defined]
    assert "libstdc++" in libraries
    assert "cuda" not in libraries.replace("_cuda", "")
    assert "openvino" not in libraries
