"""Hostile graphs in a bundle: external data that leaves it, and networks that are not what model.json says."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from btnet_ext import BtnetError, Bundle, BundleError, Engine
from btnet_train.export import write_bundle
from btnet_train.random_weights import random_networks
from bundle_copies import BundleCopy

GRAPH = "branch_7.onnx"
Change = Callable[[ModelProto], None]


@pytest.fixture
def copy(small_bundle: Path, tmp_path: Path) -> BundleCopy:
    return BundleCopy(small_bundle, tmp_path / "copy.btnet")


def refuse(read: Callable[[], object], *parts: str) -> None:
    with pytest.raises(BundleError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message, "more than one line"
    for part in (GRAPH, *parts):
        assert part in message


def set_external(graph: ModelProto, **values: object) -> None:
    """Change entries of the first tensor's external data; None drops one."""
    tensor = graph.graph.initializer[0]
    entries = {entry.key: entry.value for entry in tensor.external_data} | values
    del tensor.external_data[:]
    for key, value in entries.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))


@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "/etc/passwd", "other.bin", "./weights.bin", "sub/../weights.bin", "*/_ORT_MEM_ADDR_/*", "", "."],
)
def test_external_data_leaves_the_bundle(copy: BundleCopy, location: str) -> None:
    for secret in (copy.path.parent / "secret.bin", copy.path / "other.bin"):
        secret.write_bytes((copy.path / "weights.bin").read_bytes())
    copy.edit_graph(lambda graph: set_external(graph, location=location))
    refuse(lambda: Bundle.open(copy.path))


def test_external_data_through_a_link(copy: BundleCopy) -> None:
    (copy.path.parent / "secret.bin").write_bytes(bytes(8192))
    copy.write_file("link.bin", bytes(8192))
    (copy.path / "link.bin").unlink()
    (copy.path / "link.bin").symlink_to("../secret.bin")
    copy.edit_graph(lambda graph: set_external(graph, location="link.bin", offset=0))
    with pytest.raises(BundleError, match=r"link\.bin.*link"):
        Bundle.open(copy.path)


def test_external_data_in_every_place(copy: BundleCopy) -> None:
    """Not only initializers: constants of nodes, subgraphs and functions have tensors, too."""

    def outside() -> TensorProto:
        tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="../secret.bin")
        return tensor

    def append(node: NodeProto) -> Callable[[ModelProto], None]:
        return lambda graph: graph.graph.node.append(node)

    branch = helper.make_graph([helper.make_node("Constant", [], ["b"], value=outside())], "g", [], [])
    nodes = {
        "constant": helper.make_node("Constant", [], ["c"], value=outside()),
        "subgraph": helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch),
    }
    for node in nodes.values():
        copy.edit_graph(append(node))
        refuse(lambda: Bundle.open(copy.path), "secret.bin")
        copy.edit_graph(lambda graph: graph.graph.node.pop())
    function = helper.make_function("d", "f", [], ["c"], [nodes["constant"]], [helper.make_opsetid("", 17)])
    copy.edit_graph(lambda graph: graph.functions.append(function))
    refuse(lambda: Bundle.open(copy.path), "secret.bin")


@pytest.mark.parametrize(
    "values",
    [
        {"offset": 2**40},
        {"offset": -4096},
        {"offset": "0x10"},
        {"length": 2**40},
        {"length": -1},
        {"offset": 2**63, "length": 2**63},
        {"location": None},
    ],
)
def test_external_data_beyond_its_file(copy: BundleCopy, values: dict[str, object]) -> None:
    copy.edit_graph(lambda graph: set_external(graph, **values))
    refuse(lambda: Bundle.open(copy.path))


def replace_output(graph: ModelProto, *nodes: object, kind: int = TensorProto.FLOAT) -> None:
    """Let `nodes` make "embedding" from "before", which is what made it so far."""
    graph.graph.node[-1].output[0] = "before"
    graph.graph.node.extend(nodes)
    graph.graph.output[0].type.tensor_type.elem_type = kind


def change_input(graph: ModelProto, axis: int, value: int | str) -> None:
    dimension = graph.graph.input[0].type.tensor_type.shape.dim[axis]
    if isinstance(value, str):
        dimension.dim_param = value
    else:
        dimension.dim_value = value


def fail_when_run(graph: ModelProto) -> None:
    """Reshape (N, 512) to a shape that it can take only for some N."""
    graph.graph.initializer.append(numpy_helper.from_array(np.array([-1, 3, 512]), "shape"))
    replace_output(
        graph,
        helper.make_node("Reshape", ["before", "shape"], ["three"]),
        helper.make_node("ReduceMean", ["three"], ["embedding"], axes=[1], keepdims=0),
    )


def add_an_axis(graph: ModelProto) -> None:
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis"))
    replace_output(graph, helper.make_node("Unsqueeze", ["before", "axis"], ["embedding"]))


def with_dims(*dims: int) -> Change:
    def change(graph: ModelProto) -> None:
        del graph.graph.initializer[0].dims[:]
        graph.graph.initializer[0].dims.extend(dims)

    return change


WRONG_NETWORKS: dict[str, Change] = {
    "input of another side": lambda graph: change_input(graph, 2, 8),
    "input of any side": lambda graph: change_input(graph, 3, "W"),
    "input of one channel": lambda graph: change_input(graph, 1, 1),
    "batch of one": lambda graph: change_input(graph, 0, 1),
    "input of bytes": lambda graph: setattr(graph.graph.input[0].type.tensor_type, "elem_type", TensorProto.UINT8),
    "input of doubles": lambda graph: setattr(graph.graph.input[0].type.tensor_type, "elem_type", TensorProto.DOUBLE),
    "no input": lambda graph: graph.graph.ClearField("input"),
    "two outputs": lambda graph: graph.graph.output.append(graph.graph.input[0]),
    "no output": lambda graph: graph.graph.ClearField("output"),
    "output twice as long": lambda graph: replace_output(
        graph, helper.make_node("Concat", ["before", "before"], ["embedding"], axis=1)
    ),
    "output with two rows an image": lambda graph: replace_output(
        graph, helper.make_node("Concat", ["before", "before"], ["embedding"], axis=0)
    ),
    "output of doubles": lambda graph: replace_output(
        graph, helper.make_node("Cast", ["before"], ["embedding"], to=TensorProto.DOUBLE), kind=TensorProto.DOUBLE
    ),
    "output of three axes": add_an_axis,
    "unknown operator": lambda graph: setattr(graph.graph.node[0], "op_type", "NoSuchOperator"),
    "input of a node from nowhere": lambda graph: graph.graph.node[3].input.__setitem__(0, "nowhere"),
    "no nodes": lambda graph: graph.graph.ClearField("node"),
    "no graph": lambda graph: graph.ClearField("graph"),
    "fails when run": fail_when_run,
    "dims too large": with_dims(2**20, 3, 3, 3),
    "dims negative": with_dims(-16, 3, 3, 3),
    "dims that overflow": with_dims(2**32, 2**32),
    "tensor of an unknown type": lambda graph: setattr(graph.graph.initializer[0], "data_type", 999),
    "tensor of halves": lambda graph: setattr(graph.graph.initializer[0], "data_type", TensorProto.FLOAT16),
    "tensor of text": lambda graph: setattr(graph.graph.initializer[0], "data_type", TensorProto.STRING),
    "length too short": lambda graph: set_external(graph, length=4),
    "no length": lambda graph: set_external(graph, length=None),
}


@pytest.mark.parametrize("what", WRONG_NETWORKS)
def test_wrong_networks(copy: BundleCopy, what: str) -> None:
    copy.edit_graph(WRONG_NETWORKS[what])
    refuse(lambda: Engine(copy.path, resolutions=[7]))


def drop_black_images(graph: ModelProto) -> None:
    graph.graph.initializer.append(numpy_helper.from_array(np.array(-0.5, np.float32), "limit"))
    replace_output(
        graph,
        helper.make_node("ReduceMax", [graph.graph.input[0].name], ["brightest"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Greater", ["brightest", "limit"], ["kept"]),
        helper.make_node("Compress", ["before", "kept"], ["embedding"], axis=0),
    )


def test_fewer_rows_than_images(copy: BundleCopy) -> None:
    """Not seen when the network is made ready. The rows that lack must not be those of an earlier call."""
    copy.edit_graph(drop_black_images)
    engine = Engine(copy.path, resolutions=[7, 112], threads=1)
    grey, black = (np.full((7, 7, 3), value, np.uint8) for value in (128, 0))
    assert engine.embed([grey, grey]).shape == (2, 512)
    with pytest.raises(BtnetError, match="the branch for resolution 7 gave 1 rows for 2 images"):
        engine.embed([grey, black])
    assert engine.embed([grey, grey]).shape == (2, 512)


@pytest.fixture(scope="module")
def half_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As small_bundle, with its large weights in half precision."""
    networks = random_networks("res18", 0.25, seed=0)
    out = tmp_path_factory.mktemp("bundles") / "half.btnet"
    return write_bundle(out, networks, name="half", license="CC0-1.0", storage="f16")


@pytest.mark.parametrize(
    "change",
    [
        with_dims(2**20, 3, 3, 3),
        with_dims(-16, 3, 3, 3),
        with_dims(2**32, 2**32),
        lambda graph: setattr(graph.graph.initializer[0], "data_type", TensorProto.FLOAT),
        lambda graph: setattr(graph.graph.initializer[0], "data_type", TensorProto.UINT8),
        lambda graph: set_external(graph, length=4),
        lambda graph: set_external(graph, length=2**40),
        lambda graph: set_external(graph, length=None),
        lambda graph: set_external(graph, offset=2**40),
        lambda graph: setattr(graph.graph.node[0].attribute[0], "i", TensorProto.INT32),
        lambda graph: setattr(graph.graph.node[0].attribute[0], "i", 999),
        lambda graph: graph.graph.node.pop(0),
    ],
)
def test_wrong_networks_in_half_precision(half_bundle: Path, tmp_path: Path, change: Change) -> None:
    copy = BundleCopy(half_bundle, tmp_path / "copy.btnet")
    assert Engine(copy.path, resolutions=[7]).dim == 512
    copy.edit_graph(change)
    refuse(lambda: Engine(copy.path, resolutions=[7]))


# A graph that a file of weights could be taken for, and files of other kinds that OpenVINO would read by itself.
NO_ONNX = {
    "empty": b"",
    "text": b"hello",
    "zeros": bytes(1000),
    "only a version": b"\x08\x08",
    "an empty graph": b"\x08\x08\x3a\x00",
    "OpenVINO's own XML": b'<?xml version="1.0"?><net name="x" version="11"><layers/></net>',
    "bytes that are no UTF-8": b"\x08\x08\x12\x04\xff\xfe\xfd\xfc\x3a\x06\x0a\x04\x22\x02\xff\xfe",
}


@pytest.mark.parametrize("kind", NO_ONNX)
def test_files_that_are_no_graph(copy: BundleCopy, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    copy.write_file(GRAPH, NO_ONNX[kind])
    refuse(lambda: Engine(copy.path, resolutions=[7]))
    assert capfd.readouterr().err == "", "something wrote to stderr"


def test_graph_that_is_not_used_is_not_compiled(copy: BundleCopy) -> None:
    copy.edit_graph(WRONG_NETWORKS["unknown operator"])
    assert Engine(copy.path, resolutions=[14, 28, 112]).resolutions == (14, 28, 112)


def test_weights_with_holes(copy: BundleCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse on disk, the size that model.json says: zeros, which are noticed before anything of them is cached."""
    monkeypatch.setenv("BTNET_CACHE", str(tmp_path / "cache"))  # model.json is that of the intact bundle
    weights = copy.path / "weights.bin"
    size = weights.stat().st_size
    weights.unlink()
    with weights.open("wb") as file:
        os.truncate(file.fileno(), size)
    with pytest.raises(BundleError, match=r"weights\.bin"):
        Engine(copy.path, resolutions=[7])
    assert not list((tmp_path / "cache").rglob("*.blob"))
