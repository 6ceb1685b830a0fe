"""What tests marked `gpu` run is built, and says what is wrong where there is no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import devices
import nvcc
from kernels import HERE, SOURCES

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
