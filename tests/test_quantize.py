"""Bundles with 8-bit graphs: what quantisation changes and what it leaves alone, and how far embeddings move."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

import btnet_ext.quantize
from btnet_ext import BackendUnavailable, Bundle, BundleError, Engine, InvalidImage, InvalidOption
from btnet_ext.bundle import INPUT, OUTPUT
from btnet_ext.calibration import row_cosines
from btnet_ext.errors import BtnetError
from btnet_ext.quantize import Agreement, quantize
from btnet_train.export import write_bundle
from btnet_train.random_weights import random_networks
from bundle_copies import BundleCopy
from command_line import Call

SEED = 60
Pixels = NDArray[np.uint8]

RESOLUTIONS = (14, 112)


def smooth_faces(count: int) -> list[Pixels]:
    """Blurred noise, 112 px: like faces, it has most of its power in low frequencies."""
    rng = np.random.default_rng(SEED)
    small = rng.integers(0, 256, (count, 14, 14, 3), np.uint8)
    return [np.asarray(Image.fromarray(image).resize((112, 112), Image.Resampling.BICUBIC)) for image in small]


@pytest.fixture(scope="module")
def faces() -> list[Pixels]:
    return smooth_faces(12)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """res18 of width 0.25 with weights in half precision, so that graphs have a Cast behind them."""
    networks = random_networks("res18", 0.25, resolutions=RESOLUTIONS, seed=0)
    out = tmp_path_factory.mktemp("quantize") / "source.btnet"
    return write_bundle(out, networks, name="source", license="CC0-1.0", storage="f16")


@pytest.fixture(scope="module")
def quantized(source: Path, faces: list[Pixels], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantize") / "quantized.btnet"
    quantize(Bundle.open(source), faces, out)
    return out


def tensors(path: Path) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in onnx.load(path, load_external_data=False).graph.initializer}


def offset(tensor: onnx.TensorProto) -> int:
    return int(next(entry.value for entry in tensor.external_data if entry.key == "offset"))


def by_onnx_runtime(graph: Path, faces: list[Pixels], resolution: int) -> NDArray[np.float32]:
    """Raw embeddings of 112 px faces, resized by Pillow."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    images = [Image.fromarray(face) for face in faces]
    if resolution != 112:
        images = [image.resize((resolution, resolution), Image.Resampling.BICUBIC) for image in images]
    inputs = (np.stack([np.asarray(image, np.float32) for image in images]) - 127.5) / 127.5
    return np.concatenate([session.run([OUTPUT], {INPUT: x[None]})[0] for x in inputs.transpose(0, 3, 1, 2)])


def test_the_float_part_stays_as_it_is(source: Path, quantized: Path, faces: list[Pixels]) -> None:
    for resolution in RESOLUTIONS:
        name = f"branch_{resolution}.onnx"
        assert (quantized / name).read_bytes() == (source / name).read_bytes()
    before = (source / "weights.bin").read_bytes()
    assert (quantized / "weights.bin").read_bytes()[: len(before)] == before
    bundle = Bundle.open(quantized)
    bundle.verify()
    assert bundle.precisions == ("f32", "int8")
    np.testing.assert_array_equal(Engine(quantized).embed(faces), Engine(source).embed(faces))


def test_weights_are_rounded_to_64_steps_a_channel_and_shared(source: Path, quantized: Path) -> None:
    graphs = {resolution: onnx.load(quantized / f"branch_{resolution}_int8.onnx") for resolution in RESOLUTIONS}
    values = {
        resolution: {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for resolution, model in graphs.items()
    }
    places = {resolution: tensors(quantized / f"branch_{resolution}_int8.onnx") for resolution in RESOLUTIONS}
    floats = {tensor.name: tensor for tensor in onnx.load(source / "branch_112.onnx").graph.initializer}
    quantizers = {node.output[0]: node.input for node in graphs[112].graph.node if node.op_type == "DequantizeLinear"}
    shared = 0
    for node in graphs[112].graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        integers, scale, zero = (values[112][name] for name in quantizers[node.input[1]])
        weight = numpy_helper.to_array(floats[f"{node.name}.weight"]).astype(np.float64)
        rows = weight.reshape(len(weight), -1)
        # Half of the steps, since sums of pairs must fit 16 bits on CPUs without VNNI.
        expected = np.abs(rows).max(axis=1) / 63.5
        assert 63 <= np.abs(integers).max() <= 64
        np.testing.assert_allclose(scale, expected, rtol=1e-5)
        assert integers.dtype == np.int8
        assert not zero.any()
        np.testing.assert_allclose(integers.reshape(rows.shape), rows / expected[:, None], atol=0.501)
        name = quantizers[node.input[1]][0]
        if name in places[14] and np.array_equal(values[14][name], integers):
            shared += 1
            assert offset(places[14][name]) == offset(places[112][name])
    # By hand: with a branch for 14 px, the trunk's layers from the second unit of stage 3 on are shared: in res18 that
    # is one unit of two convolutions, two units with a shortcut of one in stage 4, and the fully connected layer.
    assert shared == 2 + 2 * 2 + 1 + 1


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_embeddings_equal_onnx_runtime_and_are_near_float(
    quantized: Path, faces: list[Pixels], resolution: int
) -> None:
    float_graph, graph = (quantized / f"branch_{resolution}{kind}.onnx" for kind in ("", "_int8"))
    in_float, expected = (by_onnx_runtime(path, faces, resolution) for path in (float_graph, graph))
    engine = Engine(quantized, precision="int8", resolutions=[resolution])
    assert engine.precision == "int8"
    embeddings = engine.embed(faces, normalize=False)
    # Where OpenVINO rounds to 8 bits, and where it keeps more, is its own choice: two ways of nearly the same numbers.
    assert row_cosines(embeddings, expected).min() > 0.995
    to_float = row_cosines(embeddings, in_float)
    assert to_float.mean() > 0.995
    assert to_float.max() < 1 - 1e-6, "it runs the graph in float32"
    cosines = row_cosines(in_float, expected)
    assert cosines.max() < 1 - 1e-6, "nothing was quantised"
    written = json.loads((quantized / "model.json").read_text())["quantization"]
    assert written["faces"] == len(faces)
    measured = written["cosine"][str(resolution)]
    assert measured["mean"] == pytest.approx(cosines.mean(), abs=1e-3)
    assert measured["lowest"] == pytest.approx(cosines.min(), abs=2e-3)
    assert measured["kept"] == []
    assert measured["mean"] >= (0.98 if resolution < 28 else 0.99)


@pytest.fixture
def as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the graphs in float32: what is around quantisation does not take its time then."""
    monkeypatch.setattr(btnet_ext.quantize, "quantize_graph", lambda graph, *_: graph)


@pytest.mark.usefixtures("as_they_are")
def test_in_place_and_once_more(source: Path, faces: list[Pixels], tmp_path: Path) -> None:
    copy = BundleCopy(source, tmp_path / "copy.btnet")
    copy.write_file("NOTICE", b"of the one who made it")
    copy.edit_model(lambda model: model.update(note="kept"))
    sizes = []
    for _ in range(2):
        agreements = quantize(Bundle.open(copy.path), faces)
        sizes.append((copy.path / "weights.bin").stat().st_size)
        Bundle.open(copy.path).verify()
        assert agreements[112].mean == pytest.approx(1)
        assert "fc" in agreements[112].kept
        assert (copy.path / "NOTICE").read_bytes() == b"of the one who made it"
        assert copy.model["note"] == "kept"
        assert copy.model["graphs"]["f32"] == json.loads((source / "model.json").read_text())["graphs"]["f32"]
    assert sizes[0] == sizes[1], "the graphs of the first time are still paid for"
    assert sorted(tmp_path.iterdir()) == [copy.path]


@pytest.mark.usefixtures("as_they_are")
def test_in_place_through_a_link_and_from_within(
    source: Path, faces: list[Pixels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = BundleCopy(source, tmp_path / "copy.btnet")
    link = tmp_path / "link.btnet"
    link.symlink_to(copy.path.name)
    quantize(Bundle.open(link), faces[:1])
    assert link.is_symlink()
    assert Bundle.open(copy.path).precisions == ("f32", "int8")
    monkeypatch.chdir(copy.path)
    quantize(Bundle.open("."), faces[:2])
    assert copy.model["quantization"]["faces"] == 2
    assert sorted(tmp_path.iterdir()) == [copy.path, link]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"faces": []}, "faces must be one image or more"),
        ({"least_cosine": {28: 0.9}}, "resolution 28, but source has no such branch"),
        ({"least_cosine": {112: 1.0}}, "above 0 and below 1, got 1.0 for 112"),
        ({"least_cosine": {112: float("nan")}}, "above 0 and below 1, got nan for 112"),
    ],
)
def test_invalid_options(source: Path, options: dict[str, object], message: str, tmp_path: Path) -> None:
    given: dict[str, object] = {"faces": smooth_faces(1)} | options
    with pytest.raises(InvalidOption, match=message):
        quantize(Bundle.open(source), out=tmp_path / "new.btnet", **given)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_below_the_limit(
    source: Path, faces: list[Pixels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(graph: onnx.ModelProto, *_: object) -> onnx.ModelProto:
        spoilt = onnx.ModelProto()
        spoilt.CopyFrom(graph)
        weight = next(tensor for tensor in spoilt.graph.initializer if "fc.weight" in tensor.name)
        noise = np.random.default_rng(SEED).normal(size=weight.dims).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(noise, weight.name))
        return spoilt

    monkeypatch.setattr(btnet_ext.quantize, "quantize_graph", spoil)
    copy = BundleCopy(source, tmp_path / "copy.btnet")
    before = copy.model
    with pytest.raises(BtnetError, match=r"cosine .* is -?0\.\d{4} at 112 px, expected 0\.99 or more: .* not written"):
        quantize(Bundle.open(copy.path), faces)
    assert copy.model == before
    assert sorted(tmp_path.iterdir()) == [copy.path]


def test_a_damaged_bundle_and_a_target_that_is_there(source: Path, faces: list[Pixels], tmp_path: Path) -> None:
    copy = BundleCopy(source, tmp_path / "copy.btnet")
    with pytest.raises(FileExistsError, match="exists: it is not overwritten"):
        quantize(Bundle.open(source), faces, copy.path)
    with (copy.path / "weights.bin").open("r+b") as file:
        file.write(b"\xff" * 8)
    with pytest.raises(BundleError, match=r"weights\.bin has been changed or damaged"):
        quantize(Bundle.open(copy.path), faces)


@pytest.mark.usefixtures("as_they_are")
def test_grey_faces_count_as_three_channels(source: Path, tmp_path: Path) -> None:
    grey = smooth_faces(2)[0][..., 0]
    quantize(Bundle.open(source), [grey, grey[..., None], np.stack([grey] * 3, axis=2)], tmp_path / "new.btnet")
    assert json.loads((tmp_path / "new.btnet" / "model.json").read_text())["quantization"]["faces"] == 3


def test_what_is_no_batch_of_faces(source: Path, tmp_path: Path) -> None:
    wrong: list[tuple[Any, str]] = [
        (np.zeros((9, 9, 3), np.uint8), "images is one array of shape"),
        ([np.zeros((9, 9, 3), np.float32)], r"images\[0\] has dtype float32"),
    ]
    for faces, message in wrong:
        with pytest.raises(InvalidImage, match=message):
            quantize(Bundle.open(source), faces, tmp_path / "new.btnet")
    assert not list(tmp_path.iterdir())


def test_calibrated_with_what_the_network_gets(source: Path, tmp_path: Path, faces: list[Pixels]) -> None:
    """Colours, mean, std and filter of the bundle, here all unlike the usual ones."""
    copy = BundleCopy(source, tmp_path / "copy.btnet")
    mean, std = [10.0, 20.0, 30.0], [100.0, 50.0, 20.0]
    copy.edit_model(lambda model: model["input"].update(color="bgr", mean=mean, std=std, filter="bilinear"))
    found = btnet_ext.quantize._inputs(Bundle.open(copy.path), faces, 14)
    small = [Image.fromarray(face).resize((14, 14), Image.Resampling.BILINEAR) for face in faces]
    pixels = np.stack([np.asarray(image, np.float64) for image in small])[..., ::-1]
    expected = (pixels - mean) / std
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), rtol=0, atol=1e-5)


def test_precisions_do_not_share_cached_networks(
    quantized: Path, faces: list[Pixels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTNET_CACHE", str(tmp_path))
    for _ in range(2):  # compiled, and from the cache
        f32, int8 = (Engine(quantized, resolutions=[14], precision=name).embed(faces) for name in ("f32", "int8"))
        assert np.abs(f32 - int8).max() > 1e-4
    assert len(list(tmp_path.rglob("*.blob"))) == 2


def test_no_place_for_the_new_bundle(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "new.btnet"
    with pytest.raises(OSError, match=r"nowhere/new\.btnet cannot be saved \(No such file or directory\)"):
        quantize(Bundle.open(source), smooth_faces(1), target)


def test_without_nncf(source: Path, faces: list[Pixels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(BackendUnavailable, match=r"btnet-ext\[quantize\]"):
        quantize(Bundle.open(source), faces, tmp_path / "new.btnet")
    assert not list(tmp_path.iterdir())


def test_the_command_without_its_extra(call: Call, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "btnet_ext.quantize")
    monkeypatch.setitem(sys.modules, "onnx", None)
    status, _, err = call("quantize", source, "--calibrate", source)
    assert status == 1
    assert err[-1].endswith("pip install 'btnet-ext[quantize]'")


def test_the_command(call: Call, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[list[Pixels], dict[int, float], Path | None]] = []

    def record(
        bundle: Bundle,
        pixels: list[Pixels],
        out: Path | None,
        *,
        least_cosine: dict[int, float],
        progress: Callable[[int, float], None],
    ) -> dict[int, Agreement]:
        given.append((pixels, least_cosine, out))
        progress(112, 0.5)
        return {112: Agreement(0.99812, 0.98765, ("conv1",)), 14: Agreement(0.999, 0.99, ())}

    monkeypatch.setattr(btnet_ext.quantize, "quantize", record)
    folder = tmp_path / "faces"
    folder.mkdir()
    faces = smooth_faces(5)
    for number, face in enumerate(faces):
        Image.fromarray(face).save(folder / f"{number}.png")
    (folder / "6.png").write_bytes(b"no image")
    arguments = ("quantize", source, "--calibrate", folder, "--least-cosine", "112=0.95", "--least-cosine", "14=0.9")
    status, out, err = call(*arguments)
    assert (status, len(given[0][0]), *given[0][1:]) == (0, 5, {112: 0.95, 14: 0.9}, None)
    few = "warning: calibrated with {} faces, where 100 or more make better graphs"
    assert err == [f"{folder}/6.png is not an image that Pillow can read", few.format(5)]
    assert out.splitlines() == [
        "112: cosine 0.9981, at least 0.9877; in float32: conv1",
        "14: cosine 0.9990, at least 0.9900",
        f"{source}: calibrated with 5 faces",
    ]
    # The first and the fourth of the six: a folder sorted by person is not cut off.
    status, out, err = call(*arguments, "--faces", 2)
    assert (status, err) == (0, [few.format(2)])
    np.testing.assert_array_equal(given[-1][0], [faces[0], faces[3]])
    status, out, err = call(*arguments, "--faces", 5)  # not the sixth
    assert (status, len(given[-1][0]), err) == (0, 5, [few.format(5)])
    status, out, err = call(*arguments, "--out", tmp_path / "new.btnet")
    assert (status, given[-1][2]) == (0, tmp_path / "new.btnet")
    assert out.splitlines()[-1] == f"{tmp_path}/new.btnet: calibrated with 5 faces"
    # Nobody's environment is to have another res50 than the package brought.
    status, out, err = call("quantize", "res50", "--calibrate", folder)
    assert (status, out, len(given)) == (1, "", 4)
    assert err[0].endswith("res50.btnet came with the package and is not changed: give --out")


@pytest.mark.parametrize(
    ("limit", "message"), [("0.9", "must be like 112=0.99, got '0.9'"), ("112=", "must be like 112=0.99, got '112='")]
)
def test_wrong_limits_on_the_command_line(call: Call, source: Path, limit: str, message: str) -> None:
    status, _, err = call("quantize", source, "--calibrate", source, "--least-cosine", limit)
    assert status == 2
    assert message in err[0]


def test_a_folder_without_faces(call: Call, source: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert call("quantize", source, "--calibrate", tmp_path)[0] == 1
    status, _, err = call("quantize", source, "--calibrate", source)
    assert status == 1
    assert "no images in" in err[-1]


def test_tensorrt_rtx_builds_it(call: Call, quantized: Path) -> None:
    status, out, err = call("build", quantized, "--precision", "int8", "--resolution", 14, "--batch", "1:2:4")
    assert (status, err) == (0, [])
    assert out.startswith("14: ")
