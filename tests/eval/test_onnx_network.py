"""What is refused as a face model in ONNX, each in one sentence; and what such files are called."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from btnet_eval.base import DataError
from btnet_eval.models import open_model
from onnx_files import save, write_model

SEED = 6


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("onnx") / "linear.onnx")


@pytest.mark.parametrize("content", [b"", b"garbage" * 50, b"<?xml version='1.0'?><net/>", bytes(1000), None])
def test_what_is_no_onnx_is_refused(
    tmp_path: Path, onnx_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """In one sentence, without what the readers of other formats write to stderr."""
    path = tmp_path / "faces.onnx"
    path.write_bytes(onnx_path.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(DataError, match=r"faces\.onnx cannot be read by OpenVINO: ") as caught:
        open_model(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_names_in_capitals_are_onnx_too(tmp_path: Path, onnx_path: Path) -> None:
    path = tmp_path / "FACES.ONNX"
    path.write_bytes(onnx_path.read_bytes())
    images = [np.random.default_rng(SEED).integers(0, 256, (112, 112, 3), np.uint8)]
    model = open_model(path)
    assert model.name == "FACES"
    assert np.array_equal(model.embed(images), open_model(onnx_path).embed(images))


def test_an_unknown_operator_is_one_sentence(tmp_path: Path) -> None:
    nodes = [helper.make_node("Unheard", ["pixels"], ["embedding"], domain="example")]
    path = save(tmp_path / "faces.onnx", nodes, {"pixels": (1, 3, 112, 112)}, {"embedding": (1, 8)})
    with pytest.raises(DataError, match=r"faces\.onnx cannot be read by OpenVINO: ") as caught:
        open_model(path)
    assert "\n" not in str(caught.value)


FLATTEN = [helper.make_node("Flatten", ["pixels"], ["embedding"])]
CANONICAL_INPUT = {"pixels": (1, 3, 112, 112)}


@pytest.mark.parametrize(
    "shape", [(1, 3, 96, 112), (1, 1, 112, 112), (4, 3, 112, 112), (1, 112, 112, 3), (3, 112, 112)]
)
def test_another_input_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    outputs = {"embedding": (shape[0], int(np.prod(shape[1:])))}
    path = save(tmp_path / "faces.onnx", FLATTEN, {"pixels": shape}, outputs)
    got = ",".join(map(str, shape))
    with pytest.raises(DataError, match=rf"faces\.onnx must have one input \(.*\), got pixels \[{got}\]"):
        open_model(path)


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    shape = (1, 3, 112, 112)
    nodes = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Flatten", ["c"], ["embedding"])]
    path = save(tmp_path / "faces.onnx", nodes, {"a": shape, "b": shape}, {"embedding": (1, 37632)})
    with pytest.raises(DataError, match=r"must have one input .*, got a \[1,3,112,112\], b \[1,3,112,112\]"):
        open_model(path)


def test_integer_input_is_refused(tmp_path: Path) -> None:
    outputs = {"embedding": (1, 37632)}
    path = save(tmp_path / "faces.onnx", FLATTEN, CANONICAL_INPUT, outputs, element=TensorProto.UINT8)
    with pytest.raises(DataError, match="must take floating-point numbers, got u8"):
        open_model(path)


def test_two_outputs_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["pixels"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    path = save(tmp_path / "faces.onnx", nodes, CANONICAL_INPUT, {"a": (1, 37632), "b": (1, 37632)})
    with pytest.raises(DataError, match=r"must have one output \(N, dim\), got a \[1,37632\], b \[1,37632\]"):
        open_model(path)


def test_maps_are_no_embedding(tmp_path: Path) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["pixels"], ["embedding"])]
    path = save(tmp_path / "faces.onnx", nodes, {"pixels": ("N", 3, 112, 112)}, {"embedding": ("N", 3, 1, 1)})
    with pytest.raises(DataError, match=r"must have one output \(N, dim\), got embedding \[1,3,1,1\]"):
        open_model(path)


def test_an_embedding_of_no_fixed_length_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["pixels"], ["flat"], axis=0),
        helper.make_node("NonZero", ["flat"], ["places"]),
        helper.make_node("Cast", ["places"], ["embedding"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["embedding", "zero", "one", "zero"], ["first"]),
    ]
    places = {"zero": np.array([0]), "one": np.array([1])}
    path = save(tmp_path / "faces.onnx", nodes, CANONICAL_INPUT, {"first": (1, "D")}, places)
    with pytest.raises(DataError, match=r"must have embeddings of a fixed length, got first \[1,"):
        open_model(path)


def test_a_graph_for_another_size_inside_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["pixels", "shape"], ["embedding"])]
    shape = {"shape": np.array([-1, 100])}
    inputs, outputs = {"pixels": ("N", 3, "H", "W")}, {"embedding": ("N", 100)}
    path = save(tmp_path / "faces.onnx", nodes, inputs, outputs, shape)
    with pytest.raises(DataError, match=r"faces\.onnx cannot take one image of 112 px: "):
        open_model(path)
