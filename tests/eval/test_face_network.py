"""Face models in ONNX against ONNX Runtime."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from btnet_eval.base import DataError
from btnet_eval.onnx_network import FaceNetwork, Preprocessing
from onnx_files import DIM, Pixels, expected_embeddings, random_images, write_model

IMAGENET: dict[str, Any] = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx")


def opened(path: Path, **preprocessing: Any) -> FaceNetwork:
    return FaceNetwork(path, Preprocessing(**preprocessing))


@pytest.fixture(scope="module")
def network(model: Path) -> FaceNetwork:
    return opened(model)


def test_embeddings_of_a_real_model(data_folder: Path) -> None:
    path, archive = data_folder / "teacher" / "mobilefacenet.onnx", data_folder / "celeba" / "val112.zip"
    with zipfile.ZipFile(archive) as content:
        names = sorted(name for name in content.namelist() if name.endswith(".jpg"))[::500]
        images = np.stack([np.asarray(Image.open(io.BytesIO(content.read(name))).convert("RGB")) for name in names])
    network = opened(path, **IMAGENET)
    embeddings = network.embed(images)
    expected = expected_embeddings(path, images, **IMAGENET)
    assert network.dim == 128
    assert len(images) == 5
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("batch", [1, "N", 0])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("normalization", [IMAGENET, {"mean": (0, 0, 0), "std": (1, 1, 255.0)}])
def test_embeddings_of_any_batch(tmp_path: Path, batch: int | str, color: str, normalization: dict[str, Any]) -> None:
    shape = (batch, 3, 112, 112) if batch else ("N", "C", "H", "W")
    path = write_model(tmp_path / "model.onnx", shape)
    images = random_images(5, 7)
    network = opened(path, color=color, **normalization)
    expected = expected_embeddings(path, images, color=color, **normalization)
    assert network.dim == DIM
    np.testing.assert_allclose(network.embed(images), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    strided = np.repeat(images, 2, axis=2)[:, :, ::2]
    assert np.array_equal(network.embed(strided), network.embed(images))


def test_plus_minus_one_is_the_default(model: Path, network: FaceNetwork) -> None:
    images = random_images(6, 2)
    expected = expected_embeddings(model, images, (127.5,) * 3, (127.5,) * 3)
    np.testing.assert_allclose(network.embed(images), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_no_images(network: FaceNetwork) -> None:
    assert network.embed(random_images(0, 0)).shape == (0, DIM)


def test_an_image_that_cannot_be_had_leaves_nothing_behind(model: Path, network: FaceNetwork) -> None:
    """The images before it are under way when it is asked for."""
    images = random_images(7, 5)

    def broken() -> Iterator[Pixels]:
        yield from images
        raise ValueError("no more")

    expected = network.embed(images[:1])
    for _ in range(20):
        with pytest.raises(ValueError, match="no more"):
            network.embed(broken())
        assert np.array_equal(network.embed(images[:1]), expected)


def test_the_digest_tells_model_and_options_apart(tmp_path: Path, model: Path, network: FaceNetwork) -> None:
    assert opened(write_model(tmp_path / "same.onnx")).digest == network.digest
    others = [
        opened(write_model(tmp_path / "other.onnx", scale=2.0)).digest,
        opened(model, mean=(127.5, 127.5, 127.0)).digest,
        opened(model, std=(127.5, 127.5, 128.0)).digest,
        opened(model, color="bgr").digest,
    ]
    assert len({network.digest, *others}) == 5


def test_weights_in_a_file_of_their_own_count(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "external.onnx"
    onnx.save(onnx.load(model), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    network = opened(path)
    images = random_images(6, 2)
    assert np.array_equal(network.embed(images), opened(model).embed(images))
    weights = tmp_path / "weights.bin"
    content = np.frombuffer(weights.read_bytes(), np.float32).copy()
    content[3] += 1
    weights.write_bytes(content.tobytes())
    assert opened(path).digest != network.digest
    weights.unlink()
    with pytest.raises(DataError, match=r"external\.onnx cannot be read by OpenVINO: .*weights\.bin"):
        opened(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        opened(tmp_path / "none.onnx")
