"""What tests marked `gpu` run is built, and says what is wrong where there is no GPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import devices
import nvcc
import pytest
from kernels import HERE, SOURCES

ROOT = Path(__file__).parents[2]

CALL_KERNELS = """
import sys
import numpy as np
from pathlib import Path
from kernels import Kernels
kernels = Kernels(Path(sys.argv[1]))
try:
    kernels.degrade([np.zeros((9, 9, 3), np.uint8)], [7])
except RuntimeError as error:
    print(error)
"""

CALL_DEVICE = """
import sys
import numpy as np
from pathlib import Path
from devices import Device
device = Device(sys, Path(sys.argv[1]))
calls = [
    lambda: device.upload(np.zeros(9, np.uint8)),
    lambda: device.pin(device, (3,), np.float32),
    lambda: device.free(0),
]
for call in calls:
    try:
        call()
    except (MemoryError, RuntimeError) as error:
        print(error)
"""


def run_without_gpu(code: str, library: Path) -> list[str]:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    command = [sys.executable, "-c", code, str(library)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.splitlines()


def test_kernels(cuda_home: Path, tmp_path: Path) -> None:
    library = nvcc.build_library(cuda_home, SOURCES, tmp_path / "kernels.so", architectures=["75"])
    (message,) = run_without_gpu(CALL_KERNELS, library)
    assert "failed: " in message
    assert message.endswith(("(cudaErrorInsufficientDriver)", "(cudaErrorNoDevice)"))


def test_device_calls(cuda_home: Path, tmp_path: Path) -> None:
    messages = run_without_gpu(CALL_DEVICE, devices.build_calls(tmp_path, cuda_home))
    assert messages[:2] == ["device_upload: no 9 bytes", "device_pin: no 12 bytes"]
    assert messages[2] in ("device_free: CUDA's error 35", "device_free: CUDA's error 100")


@pytest.mark.parametrize("wanted", ["AUTO", "ON"])
@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("#define CUDART_VERSION 12040\n", "/nvcc is of CUDA 12.4, which has no sm_120"),
        ("#define CUDART_VERSION 13000\n", " lacks cuda_runtime_api.h or cudart_static"),
        (None, " lacks cuda_runtime_api.h or cudart_static"),
    ],
)
def test_a_toolkit_that_does_not_do(wanted: str, header: str | None, why: str, tmp_path: Path) -> None:
    """Too old, or not complete: everything else is built and the end says why, unless the CUDA part was asked for."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake")
    (tmp_path / "include").mkdir()
    if header is not None:
        (tmp_path / "include" / "cuda_runtime_api.h").write_text(header)
    compiler = tmp_path / "nvcc"
    compiler.write_text(f"#!/bin/sh\necho '#$ TOP={tmp_path}' >&2\n")
    compiler.chmod(0o755)
    command = ["cmake", "-S", str(ROOT), "-B", str(tmp_path / "build"), f"-DPython_EXECUTABLE={sys.executable}"]
    command += [f"-DBTNET_NVCC={compiler}", f"-DBTNET_CUDA={wanted}"]
    configured = subprocess.run(command, capture_output=True, text=True)
    assert (configured.returncode == 0) == (wanted == "AUTO")
    output = " ".join((configured.stdout + configured.stderr).split())
    assert f"{tmp_path}{why}" in output
