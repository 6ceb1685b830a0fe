"""The snippets of README.md run as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippet(language: str) -> str:
    """Return the one block of a language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return str(code)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """Make a folder that has of a clone what the snippets use."""
    for name in ("examples", "python"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_python(workplace: Path) -> None:
    done = subprocess.run([sys.executable, "-c", snippet("python")], cwd=workplace, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    selected = [int(number) for number in done.stdout.partition("]")[0].strip(" [").split()]
    faces = sorted((ROOT / "examples" / "faces").glob("*.[jp][pn]g"))
    sides = [int(path.stem[-3:]) for path in faces]
    assert selected == [next((r for r in (7, 14, 28) if side <= r), 112) for side in sides]


def test_cpp(workplace: Path, installed: Path) -> None:
    (workplace / "main.cc").write_text(snippet("cpp"))
    (workplace / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(app LANGUAGES CXX)\nfind_package(btnet REQUIRED)\n"
        "add_executable(app main.cc)\ntarget_link_libraries(app PRIVATE btnet::btnet)\n"
    )
    for command in (
        ["cmake", "-S", ".", "-B", "build", f"-DCMAKE_PREFIX_PATH={installed}"],
        ["cmake", "--build", "build"],
    ):
        subprocess.run(command, cwd=workplace, check=True, capture_output=True)
    done = subprocess.run(["build/app"], cwd=workplace, check=True, capture_output=True, text=True)
    assert re.fullmatch(r"512 values, the first is -?0\.\d+\n", done.stdout)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
