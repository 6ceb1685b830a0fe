"""Importing the package, and finding OpenVINO: wherever it is, the right version, or an error that says which one."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import btnet_ext
from btnet_ext._native import OPENVINO_VERSION

ROOT = Path(__file__).parents[1]


def run(code: str, **environment: str) -> str:
    """Run Python code in a process of its own, away from the repository; give what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_import_loads_nothing_heavy() -> None:
    code = """
import sys
import btnet_ext
print([name for name in ("numpy", "openvino", "PIL", "torch", "onnx", "btnet_ext._core", "btnet_train")
       if name in sys.modules])
"""
    assert run(code) == "[]"


def test_errors_need_nothing_native() -> None:
    assert run("import sys, btnet_ext; btnet_ext.InvalidImage; print('btnet_ext._core' in sys.modules)") == "False"


def test_engine_does_not_import_openvino_for_python() -> None:
    code = "import sys, btnet_ext; btnet_ext.Engine; print([m for m in ('openvino', 'torch') if m in sys.modules])"
    assert run(code) == "[]"


def test_every_name_is_there() -> None:
    for name in btnet_ext.__all__:
        assert getattr(btnet_ext, name) is not None
        assert name in dir(btnet_ext)
    with pytest.raises(AttributeError, match="no attribute 'Motor'"):
        btnet_ext.Motor  # noqa: B018
    assert btnet_ext.__version__ == metadata.version("btnet-ext")


def test_openvino_pins_agree() -> None:
    pins = re.findall(r"openvino==([0-9.]+)", (ROOT / "pyproject.toml").read_text())
    assert pins == [OPENVINO_VERSION] * 2
    assert metadata.version("openvino") == OPENVINO_VERSION


def test_without_ld_library_path() -> None:
    assert run("import os, btnet_ext; btnet_ext.Engine; print('ok')", LD_LIBRARY_PATH="") == "ok"


REFUSED = """
import btnet_ext
try:
    btnet_ext.Engine
    print("nothing was raised")
except btnet_ext.BackendUnavailable as error:
    print(error)
"""


def test_openvino_is_missing() -> None:
    block = """
import importlib.util, importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "openvino":
            raise ModuleNotFoundError(name)
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "openvino" else find(name, package)
"""
    assert f"openvino {OPENVINO_VERSION}" in run(block + REFUSED)


def installation(folder: Path, version: str | None) -> Path:
    """Make a site folder with an openvino package, without libraries, and what pip would say of it."""
    (folder / "openvino").mkdir(parents=True)
    (folder / "openvino" / "__init__.py").touch()
    if version is not None:
        info = folder / f"openvino-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: openvino\nVersion: {version}\n")
    return folder


@pytest.mark.parametrize("version", ["2025.4.1", "2026.4.10", "2026.4.1.dev1"])
def test_openvino_of_another_version(tmp_path: Path, version: str) -> None:
    message = run(REFUSED, PYTHONPATH=str(installation(tmp_path / "site", version)))
    assert f"openvino {OPENVINO_VERSION}" in message
    assert version in message
    assert "\n" not in message


def test_openvino_without_libraries(tmp_path: Path) -> None:
    message = run(REFUSED, PYTHONPATH=str(installation(tmp_path / "site", OPENVINO_VERSION)))
    assert f"openvino=={OPENVINO_VERSION}" in message


def test_openvino_that_pip_does_not_know(tmp_path: Path) -> None:
    """A folder of that name, as a checkout of its sources has one, hides the installed package or its metadata."""
    code = f"import sys; sys.path[:] = [{str(installation(tmp_path / 'site', None))!r}, *sys.path]\n"
    hide = (
        "import importlib.metadata as m\ndef version(name): raise m.PackageNotFoundError(name)\nm.version = version\n"
    )
    assert f"openvino=={OPENVINO_VERSION}" in run(code + hide + REFUSED)


def test_openvino_whose_library_is_damaged(tmp_path: Path) -> None:
    site = installation(tmp_path / "site", OPENVINO_VERSION)
    (site / "openvino" / "libs").mkdir()
    (site / "openvino" / "libs" / "libopenvino.so.2641").write_bytes(b"not a library")
    assert f"openvino=={OPENVINO_VERSION}" in run(REFUSED, PYTHONPATH=str(site))


def test_openvino_in_another_site_folder(tmp_path: Path) -> None:
    """As with a user site beside a virtual environment: nothing may hang on where btnet_ext itself is."""
    package = Path(btnet_ext.__file__).parent
    openvino = Path(str(metadata.distribution("openvino").locate_file("openvino")))
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    (ours / "btnet_ext").mkdir()
    for source in package.glob("*.py"):
        (ours / "btnet_ext" / source.name).symlink_to(source)
    core = run("from btnet_ext._native import core; print(core.__file__)")
    (ours / "btnet_ext" / Path(core).name).symlink_to(core)
    (theirs / "openvino").symlink_to(openvino)
    (info,) = openvino.parent.glob("openvino-*.dist-info")
    (theirs / info.name).symlink_to(info)
    code = """
import sys
from btnet_ext._native import core
import btnet_ext
with open("/proc/self/maps") as maps:
    print(core.available_cores() >= 1, "libopenvino.so" in maps.read(), btnet_ext.__file__)
"""
    # -S keeps the environment's own site-packages, and with it both packages, out of sight; numpy is not needed.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{ours}{os.pathsep}{theirs}"},
        cwd="/",
    )
    assert done.stdout.split() == ["True", "True", str(ours / "btnet_ext" / "__init__.py")], done.stderr
