"""Fixtures of btnet_train's tests."""

import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_training import write_faces
from train_command import Call

from btnet_train.cli import main
from btnet_train.export import write_bundle
from btnet_train.networks import IResNet
from btnet_train.random_weights import random_networks
from btnet_train.sources import Faces


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from more, and lose much where other programs run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def networks() -> dict[int, IResNet]:
    """A small trunk with a branch for every resolution."""
    return random_networks("res18", 0.25, dim=64, resolutions=(7, 14, 28, 56, 112), seed=3)


@pytest.fixture(scope="session")
def bundle(networks: dict[int, IResNet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `networks`; not to be changed."""
    out = tmp_path_factory.mktemp("bundles") / "small.btnet"
    training = {"method": "none"}
    return write_bundle(out, networks, name="small", license="CC0-1.0", training=training)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 20 faces of 5 people; not to be changed."""
    return write_faces(tmp_path_factory.mktemp("faces") / "set")


@pytest.fixture(scope="session")
def faces(data: Path) -> Faces:
    """Those of `data`."""
    return Faces([data])


@pytest.fixture(scope="session")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 32 faces of 8 people; not to be changed."""
    return write_faces(tmp_path_factory.mktemp("faces") / "set", identities=8)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run btnet-train in this process: status, stdout, and the lines of stderr that are the command's own."""

    def run(*arguments: object) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["btnet-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        start = "btnet-train: "
        return (
            int(caught.value.code or 0),
            out,
            [line[len(start) :] for line in err.splitlines() if line.startswith(start)],
        )

    return run


@pytest.fixture(scope="session")
def crops(data_folder: Path) -> list[Image.Image]:
    """Every twentieth of the real crops, 22 faces of mixed resolution."""
    path = data_folder / "celeba" / "native_crops.zip"
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith((".png", ".jpg", ".jpeg")))
        return [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names[::20]]
