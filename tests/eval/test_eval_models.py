"""Models to measure: bundles against the engine, ONNX models against ONNX Runtime, and what is refused as one."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino as ov
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image

from btnet_eval import models as module
from btnet_eval.base import DataError
from btnet_eval.cache import EmbeddingCache, Images
from btnet_eval.models import Model, open_model
from btnet_eval.onnx_network import Preprocessing
from btnet_ext import Engine, InvalidImage, InvalidOption, ModelNotFound, cuda
from btnet_ext.trt_library import Gpu
from bundle_copies import BundleCopy
from letting_go import interrupted_after
from onnx_files import DIM, Pixels, write_model

IMAGENET = Preprocessing(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


def random_images(seed: int, *sides: int) -> list[Pixels]:
    source = np.random.default_rng(seed)
    return [source.integers(0, 256, (side, side, 3), np.uint8) for side in sides]


def pillow_resize(image: Pixels, side: int) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def normalized(rows: NDArray[Any]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return rows / lengths


@pytest.fixture(scope="module")
def bundle_model(small_bundle: Path) -> Model:
    return open_model(small_bundle)


@pytest.mark.parametrize("flip", [False, True])
def test_a_bundle_embeds_as_its_engine(small_bundle: Path, flip: bool) -> None:
    images = random_images(1, 112, 7, 14, 30)
    model = open_model(str(small_bundle), flip=flip)
    assert (model.name, model.resolutions) == ("small", (7, 14, 28, 112))
    raw = Engine(small_bundle).embed(images, normalize=False)
    if flip:
        raw = raw + Engine(small_bundle).embed([image[:, ::-1] for image in images], normalize=False)
    rows = model.embed(tuple(images))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, normalized(raw), atol=1e-5)


def test_a_bundle_is_shown_small_images(bundle_model: Model) -> None:
    (image,) = random_images(2, 112)
    for resolution in (7, 14, 28, 112):
        assert np.array_equal(bundle_model.present(image, resolution), pillow_resize(image, resolution))
    # It has no network for this one.
    degraded = pillow_resize(pillow_resize(image, 20), 112)
    assert np.array_equal(bundle_model.present(image, 20), degraded)


def test_a_model_of_one_network_is_shown_degraded_images() -> None:
    (image,) = random_images(3, 90)
    model = Model("one", lambda images: np.ones((len(images), 2), np.float32), "one", (112,))
    for resolution in (5, 28, 112):
        expected = pillow_resize(pillow_resize(image, resolution), 112)
        assert np.array_equal(model.present(image, resolution), expected)


def test_a_bundle_is_shown_what_its_engine_would_make(tmp_path: Path, small_bundle: Path) -> None:
    """Also where it says that its images are resized by the bilinear filter."""
    copy = BundleCopy(small_bundle, tmp_path / "bilinear.btnet")
    copy.edit_model(lambda model: model["input"].update(filter="bilinear"))
    model, (image,) = open_model(copy.path, flip=False), random_images(3, 20)
    shown = model.present(image, 28)
    assert np.array_equal(shown, np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BILINEAR)))
    assert np.array_equal(model.embed([shown]), model.embed([image])), "20 px go to 28"


def test_the_one_branch_of_a_bundle_is_shown_its_resolution() -> None:
    (image,) = random_images(3, 90)
    model = Model("one", lambda images: np.ones((len(images), 2), np.float32), "one", (28,))
    assert np.array_equal(model.present(image, 28), pillow_resize(image, 28))
    assert np.array_equal(model.present(image, 14), pillow_resize(pillow_resize(image, 14), 112))


def test_the_digest_of_a_bundle_tells_it_and_its_options_apart(
    tmp_path: Path, small_bundle: Path, bundle_model: Model
) -> None:
    assert re.fullmatch("[0-9a-f]{64}", bundle_model.digest)
    assert open_model(small_bundle).digest == bundle_model.digest
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "input": lambda model: model["input"].update(mean=[127.5, 127.5, 127.0]),
        "selection": lambda model: model["selection"].update(rounding="near"),
        "branches": lambda model: (model["resolutions"].remove(7), model["graphs"]["f32"].pop("7")),
    }
    digests = []
    for name, change in changes.items():
        copy = BundleCopy(small_bundle, tmp_path / f"{name}.btnet")
        copy.edit_model(change)
        digests.append(open_model(copy.path).digest)
    copy = BundleCopy(small_bundle, tmp_path / "graph.btnet")
    copy.edit_graph(lambda graph: setattr(graph, "doc_string", "another"))
    digests += [
        open_model(copy.path).digest,
        open_model(small_bundle, flip=False).digest,
    ]
    assert len({bundle_model.digest, *digests}) == 6


def test_the_digest_tells_devices_and_versions_apart(
    small_bundle: Path, bundle_model: Model, onnx_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device that "auto" stands for counts, and what runs the networks."""
    digests = {bundle_model.digest, open_model(onnx_path).digest}
    assert open_model(small_bundle, device="auto").digest == bundle_model.digest, "there is no GPU here"
    for owner, name in ((module, "__version__"), (PIL, "__version__"), (ov, "__version__")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, "9.9")
            digests |= {open_model(small_bundle).digest, open_model(onnx_path).digest}
    assert len(digests) == 8
    monkeypatch.setattr(Engine, "device", "cuda:1")
    for release, card in (("11.0", "A"), ("11.1", "A"), ("11.1", "B")):
        monkeypatch.setattr(cuda, "find_gpu", lambda device, card=card: Gpu(f"{card}{device}", (8, 0)))
        library = SimpleNamespace(__name__="tensorrt", __version__=release)
        monkeypatch.setattr(cuda, "find_tensorrt", lambda gpu, library=library: library)
        digests.add(open_model(small_bundle).digest)
    assert len(digests) == 11


def test_what_changes_no_embedding_changes_no_digest(tmp_path: Path, small_bundle: Path, bundle_model: Model) -> None:
    """Thresholds above all: what is embedded to recommend them is there for what comes after."""
    copy = BundleCopy(small_bundle, tmp_path / "small.btnet")
    thresholds = {"flip": True, "far": {"0.01": {"7&7": {"cosine": 0.5, "tar": 0.5}}}}
    copy.edit_model(lambda model: model.update(thresholds=thresholds, name="other", license="MIT"))
    other = open_model(copy.path)
    assert (other.name, other.digest) == ("other", bundle_model.digest)


@pytest.mark.parametrize("kind", ["bundle", "onnx"])
def test_one_array_is_no_list_of_images(kind: str, small_bundle: Path, onnx_path: Path) -> None:
    """Neither are its rows taken for grey images."""
    model = open_model(small_bundle if kind == "bundle" else onnx_path)
    image: Any
    image, other = random_images(3, 30, 30)
    both: Any = np.stack([image, other])
    with pytest.raises(InvalidImage, match=r"images is one array of shape \(30, 30, 3\).*pass a list, \[image\]"):
        model.embed(image)
    np.testing.assert_allclose(model.embed(both), model.embed([image, other]), atol=1e-6)


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(ModelNotFound, match="there is no model 'unheard'"):
        open_model("unheard")


def expected_rows(path: Path, images: list[Pixels], preprocessing: Preprocessing, *, flip: bool) -> NDArray[np.float64]:
    """ONNX Runtime's, an image at a time, with Pillow's resizing."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def embed(image: Pixels) -> NDArray[np.float32]:
        channels = image if preprocessing.color == "rgb" else image[..., ::-1]
        x = (channels - np.array(preprocessing.mean, np.float64)) / np.array(preprocessing.std, np.float64)
        batch = x.transpose(2, 0, 1)[None].astype(np.float32)
        row: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: batch})[0][0]
        return row

    canonical = [pillow_resize(image, 112) for image in images]
    return normalized(np.stack([embed(image) + (embed(image[:, ::-1]) if flip else 0) for image in canonical]))


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("onnx") / "linear.onnx")


@pytest.mark.parametrize(
    ("batch", "flip", "preprocessing"),
    [
        (1, True, Preprocessing(std=(128, 128, 128))),
        ("N", False, Preprocessing((0, 0, 0), (1, 2, 255), "bgr")),
        (0, True, IMAGENET),
    ],
)
def test_an_onnx_model_embeds_as_by_onnx_runtime(
    tmp_path: Path, batch: int | str, flip: bool, preprocessing: Preprocessing
) -> None:
    path = write_model(tmp_path / "linear.onnx", (batch, 3, 112, 112) if batch else ("N", "C", "H", "W"))
    images = random_images(5, 112, 112, 112, 40, 200)
    model = open_model(path, flip=flip, preprocessing=preprocessing)
    assert (model.name, model.resolutions) == ("linear", (112,))
    rows = model.embed(images)
    assert (rows.shape, rows.dtype) == ((5, DIM), np.dtype(np.float32))
    np.testing.assert_allclose(rows, expected_rows(path, images, preprocessing, flip=flip), atol=1e-4)
    assert np.array_equal(model.embed(images[3:]), rows[3:])
    strided = [np.repeat(image, 2, axis=1)[:, ::2] for image in images]
    assert np.array_equal(model.embed(strided), rows)
    assert model.embed([]).shape == (0, DIM)


@pytest.mark.parametrize("kind", ["bundle", "onnx"])
def test_embeddings_with_their_lengths(kind: str, small_bundle: Path, onnx_path: Path) -> None:
    path = small_bundle if kind == "bundle" else onnx_path
    images = random_images(5, 112, 14)
    raw, unit = (open_model(path, flip=False, normalize=normalize) for normalize in (False, True))
    assert raw.digest != unit.digest
    if kind == "bundle":
        expected = Engine(path).embed(images, normalize=False)
        np.testing.assert_array_equal(raw.embed(images), expected)
    else:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        batch = (
            np.stack([pillow_resize(image, 112) for image in images]).transpose(0, 3, 1, 2) - np.float32(127.5)
        ) / 127.5
        name = session.get_inputs()[0].name
        expected = np.stack([session.run(None, {name: x[None].astype(np.float32)})[0][0] for x in batch])
        np.testing.assert_allclose(raw.embed(images), expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(np.linalg.norm(raw.embed(images), axis=1), 1)
    np.testing.assert_allclose(normalized(raw.embed(images)), unit.embed(images), atol=1e-6)


def test_plus_minus_one_flipped_is_the_default(onnx_path: Path) -> None:
    images = random_images(6, 112, 112)
    expected = expected_rows(onnx_path, images, Preprocessing((127.5,) * 3, (127.5,) * 3, "rgb"), flip=True)
    np.testing.assert_allclose(open_model(str(onnx_path)).embed(images), expected, atol=1e-4)


def test_embeddings_of_the_real_teacher(data_folder: Path) -> None:
    path = data_folder / "teacher" / "mobilefacenet.onnx"
    images = random_images(8, 112, 60)
    rows = open_model(path, preprocessing=IMAGENET).embed(images)
    np.testing.assert_allclose(rows, expected_rows(path, images, IMAGENET, flip=True), atol=1e-4)


def test_the_digest_of_an_onnx_model_tells_it_and_its_options_apart(tmp_path: Path, onnx_path: Path) -> None:
    digest = open_model(onnx_path).digest
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert open_model(write_model(tmp_path / "same.onnx")).digest == digest
    whole_numbers, floats = (
        open_model(onnx_path, preprocessing=Preprocessing(mean=mean)).digest for mean in ((1, 2, 3), (1.0, 2.0, 3.0))
    )
    assert whole_numbers == floats
    others = [
        open_model(write_model(tmp_path / "other.onnx", scale=2.0)).digest,
        open_model(onnx_path, flip=False).digest,
        open_model(onnx_path, preprocessing=Preprocessing(mean=(127.5, 127.5, 127.0))).digest,
        open_model(onnx_path, preprocessing=Preprocessing(std=(127.5, 127.5, 128.0))).digest,
        open_model(onnx_path, preprocessing=Preprocessing(color="bgr")).digest,
    ]
    assert len({digest, whole_numbers, *others}) == 7


def test_weights_in_a_file_of_their_own_count(tmp_path: Path, onnx_path: Path) -> None:
    path = tmp_path / "external.onnx"
    onnx.save(onnx.load(onnx_path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    images = random_images(6, 112)
    model = open_model(path)
    assert np.array_equal(model.embed(images), open_model(onnx_path).embed(images))
    weights = tmp_path / "weights.bin"
    content = np.frombuffer(weights.read_bytes(), np.float32).copy()
    content[3] += 1
    weights.unlink()  # the network may have mapped it
    weights.write_bytes(content.tobytes())
    assert open_model(path).digest != model.digest
    weights.unlink()
    with pytest.raises(DataError, match=r"external\.onnx cannot be read by OpenVINO: .*weights\.bin"):
        open_model(path)


def test_an_embedding_of_nothing_is_told(onnx_path: Path, tmp_path: Path) -> None:
    """By the name of its image, which the cache knows."""
    shown = [*random_images(9, 112), np.zeros((112, 112, 3), np.uint8)]
    model = open_model(onnx_path, preprocessing=Preprocessing(mean=(0, 0, 0)))
    assert np.array_equal(model.embed(shown)[1], np.zeros(DIM))
    images = Images("shown", ["noise.png", "black.png"], shown.__getitem__)
    with pytest.raises(ValueError, match=r"linear gives an embedding of black\.png that is zero or not finite"):
        EmbeddingCache(tmp_path).rows(model, images, None)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        open_model(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (1, 2)}, r"mean must be three finite numbers, not \(1, 2\)"),
        ({"mean": (1, 2, float("nan"))}, "mean must be three finite numbers"),
        ({"std": (1, 0, 1)}, "std must be three positive, finite numbers"),
        ({"std": (1, 1, 1, 1)}, "std must be three positive, finite numbers"),
        ({"color": "RGB"}, "color must be rgb or bgr, not 'RGB'"),
    ],
)
def test_wrong_preprocessing_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Preprocessing(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, "device must be 'cpu' for an ONNX model, not 'cuda'"),
        ({"precision": "bf16"}, "precision must be 'f32' for an ONNX model, not 'bf16'"),
    ],
)
def test_options_of_a_bundle_are_not_for_onnx(onnx_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        open_model(onnx_path, **options)


def test_options_that_a_bundle_does_not_take(small_bundle: Path) -> None:
    with pytest.raises(InvalidOption, match=r"preprocessing is for an ONNX model, and .* is a bundle"):
        open_model(small_bundle, preprocessing=Preprocessing())


MAKE = """
import numpy as np
from btnet_eval.models import open_model
made = [open_model(sys.argv[1])]
made[0].embed([np.full((112, 112, 3), 7, np.uint8)])
"""


def test_signals_after_another_thread_let_go_of_a_model(onnx_path: Path) -> None:
    assert interrupted_after(MAKE, onnx_path)
