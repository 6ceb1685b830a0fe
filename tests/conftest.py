"""Fixtures for all tests: a small bundle, real faces where there are any, folders of the session's own."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import Call, in_process, succeed
from missing import give_up


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the session, and the processes that it starts, away from the user's models and cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BTNET_HOME", str(tmp_path_factory.mktemp("btnet_home")))
        patch.setenv("BTNET_CACHE", str(tmp_path_factory.mktemp("btnet_cache")))
        yield


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """res18 of width 0.25 with random weights, 512-d, branches 7, 14, 28 and 112; not to be changed."""
    from btnet_train.export import write_bundle
    from btnet_train.random_weights import random_networks

    networks = random_networks("res18", 0.25, seed=0)
    return write_bundle(tmp_path_factory.mktemp("bundles") / "small.btnet", networks, name="small", license="CC0-1.0")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real faces in $BTNET_DATA, or ../shared/data beside the repository; skips where neither is there."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("BTNET_DATA", beside))
    if not folder.is_dir():
        give_up("BTNET_REQUIRE_DATA", f"no real faces: {folder} does not exist; set BTNET_DATA")
    return folder


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the C++ library of this repository into a folder of its own."""
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("no cmake or no C++ compiler")
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("prefix")
    # Not optimised: it is built in half the time, and gives the same.
    root = Path(__file__).parents[1]
    succeed(
        "cmake",
        "-S",
        root,
        "-B",
        build,
        f"-DPython_EXECUTABLE={sys.executable}",
        "-DCMAKE_BUILD_TYPE=Debug",
        "-DBTNET_CUDA_ARCHITECTURES=75",
    )
    succeed("cmake", "--build", build, "--parallel", 2)
    succeed("cmake", "--install", build, "--prefix", prefix)
    # What is installed must stand alone, and somewhere else.
    shutil.rmtree(build)
    return prefix.rename(prefix.with_name("moved"))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command btnet in this process, as `in_process`."""
    from btnet_ext import cli

    return in_process("btnet", cli.main, monkeypatch, capsys)
