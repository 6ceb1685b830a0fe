"""The C++ program of docs/gpu.md is built against the installed library, and says that there is no GPU."""

import os
import re
import subprocess
from pathlib import Path

from kernels import CSRC

from command_line import succeed

DOCS = (CSRC.parent / "docs" / "gpu.md").read_text(encoding="utf-8")


def snippet(language: str) -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", DOCS, re.DOTALL | re.MULTILINE)
    return str(code)


def test_program_of_the_docs(cuda_home: Path, installed: Path, small_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "my_model.btnet").symlink_to(small_bundle)
    (tmp_path / "main.cc").write_text(snippet("cpp"))
    find, link = snippet("cmake").splitlines()
    lines = ["cmake_minimum_required(VERSION 3.20)", "project(app LANGUAGES CXX)", find, "add_executable(app main.cc)"]
    (tmp_path / "CMakeLists.txt").write_text("\n".join([*lines, link]))
    build = tmp_path / "build"
    prefix, toolkit = f"-DCMAKE_PREFIX_PATH={installed}", f"-DCUDAToolkit_ROOT={cuda_home}"
    succeed("cmake", "-S", tmp_path, "-B", build, prefix, toolkit)
    succeed("cmake", "--build", build)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([build / "app"], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert re.fullmatch(r"device 'cuda:0' is not available: .*error (35|100)\)\n", done.stderr)
