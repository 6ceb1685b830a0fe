"""What networks make of a face, layer by layer: a figure, and the page around it."""

import difflib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from btnet_eval.base import DataError, Image
from btnet_eval.onnx_network import (
    CANONICAL,
    Preprocessing,
    UnsuitableNetworkError,
    compile_network,
    is_onnx,
    last_line,
    read_network,
)
from btnet_eval.plots import feature_maps
from btnet_eval.report import Cell, Section
from btnet_eval.session import Run
from btnet_ext import Bundle, InvalidOption, models, resize


@dataclass(frozen=True)
class Layer:
    """A layer with a feature map as output. kind: OpenVINO's name of the operation. shape: channels, height, width."""

    name: str
    kind: str
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Network:
    """One network of a model, to look into; `open_network` makes it.

    name: for people. side: of its input, in pixels. digest: of the bundle, or of the ONNX file. graph: OpenVINO's, for
    one image. preprocessing, filter: how it is given an image.
    """

    name: str
    side: int
    digest: str
    graph: Any
    preprocessing: Preprocessing
    filter: str

    @cached_property
    def layers(self) -> Mapping[str, Layer]:
        """By name, in an order in which they can be computed.

        These are the nodes of the ONNX file whose output is (1, C, h, w) numbers. Those without a name have that of
        their output; where several have one name, OpenVINO numbers them.
        """
        return {
            name: Layer(name, operation.get_type_name(), tuple(operation.output(0).shape)[1:])
            for name, operation in self._operations.items()
        }

    def maps(self, image: Image, layers: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """(C, h, w) outputs of the named layers for an image, computed in float32 on the CPU.

        The image is resized to the network's side. Raises InvalidOption for a name that no layer has, with the nearest
        ones, and if there is no name or one twice.
        """
        for name in layers:
            if name not in self._operations:
                nearest = difflib.get_close_matches(name, self._operations, n=3, cutoff=0)
                raise InvalidOption(f"{self.name} has no layer {name!r}; the nearest names are {', '.join(nearest)}")
        if not layers or len(set(layers)) < len(layers):
            raise InvalidOption(f"layers must be one or more of {self.name}, each once, not {list(layers)}")
        wanted = [self._operations[name].output(0) for name in layers]
        part = ov.Model(wanted, self.graph.get_parameters(), self.name)
        results = compile_network(ov.Core(), part, {"INFERENCE_PRECISION_HINT": "f32"})(self._input(image))
        return {name: np.array(results[place][0], np.float32) for place, name in enumerate(layers)}

    def _input(self, image: Image) -> NDArray[np.float32]:
        pixels = resize(image, (self.side, self.side), filter=self.filter).astype(np.float32)
        given = self.preprocessing
        channels = pixels if given.color == "rgb" else pixels[..., ::-1]
        normalized = (channels - np.array(given.mean, np.float32)) / np.array(given.std, np.float32)
        return np.ascontiguousarray(normalized.transpose(2, 0, 1)[None], np.float32)

    @cached_property
    def _operations(self) -> Mapping[str, Any]:
        """OpenVINO may make several operations of a node; the last one has the names of the node and of its output."""
        operations = self.graph.get_ordered_ops()
        return {operation.get_friendly_name(): operation for operation in operations if _is_layer(operation)}


def open_network(
    model: str | os.PathLike[str], *, resolution: int | None = None, preprocessing: Preprocessing | None = None
) -> Network:
    """Open a network of a model to look into.

    Args:
        model: a bundle's name or path, as `btnet_ext.Engine` takes it; or the path of an ONNX model, ending in .onnx.
        resolution: of a branch; None: 112 px, which is also the only one that an ONNX model has.
        preprocessing: of an ONNX model; None: `Preprocessing()`. A bundle says itself what it is given.

    Raises:
        DataError: an ONNX model that is damaged, or is no face model for 112 px.
        BtnetError: there is no such bundle, or it is damaged; `InvalidOption` for an option that does not fit.
        OSError: from the file system.
    """
    if is_onnx(model):
        if resolution not in (None, CANONICAL):
            raise InvalidOption(f"resolution must be {CANONICAL} for an ONNX model, not {resolution}")
        return _open_onnx(Path(model), preprocessing or Preprocessing())
    if preprocessing is not None:
        raise InvalidOption(f"preprocessing is for an ONNX model, and {os.fspath(model)} is a bundle")
    bundle = Bundle.open(models.locate(model))
    return _open_branch(bundle, bundle.canonical if resolution is None else resolution)


def _open_onnx(path: Path, preprocessing: Preprocessing) -> Network:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        graph = read_network(ov.Core(), path)
    except UnsuitableNetworkError as error:
        raise DataError(f"{path} {error}") from error
    return Network(path.stem, CANONICAL, digest, graph, preprocessing, "bicubic")


def _open_branch(bundle: Bundle, side: int) -> Network:
    if side not in bundle.resolutions:
        known = ", ".join(map(str, bundle.resolutions))
        raise InvalidOption(f"resolution must be one of {known}, the branches of {bundle.name}, not {side}")
    given = bundle.metadata["input"]
    path = bundle.path / bundle.metadata["graphs"]["f32"][str(side)]
    try:
        graph = ov.Core().read_model(path)
        graph.reshape([1, 3, side, side])
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read by OpenVINO: {last_line(error)}") from error
    preprocessing = Preprocessing(tuple(given["mean"]), tuple(given["std"]), given["color"])
    return Network(f"{bundle.name}, branch {side}", side, bundle.digest, graph, preprocessing, given["filter"])


def _is_layer(operation: Any) -> bool:
    if operation.get_type_name() in ("Constant", "Parameter", "Result"):
        return False
    output = operation.output(0)
    shape = output.partial_shape
    is_map = shape.is_static and len(shape) == 4 and output.shape[0] == 1 and output.element_type.is_real()
    return bool(output.names) and is_map


def write_feature_maps(
    run: Run, networks: Sequence[tuple[Network, Sequence[str]]], image: Image, image_name: str, resolution: int | None
) -> Path:
    """Draw layers of several networks side by side, the mean over the channels of each; return the page's path.

    Writes OUT/features.json, .md, .html, and feature_maps.png and .svg.

    Args:
        run: its problems are not used.
        networks: each with the names of its layers to show, as many for all.
        image: a face.
        image_name: for people.
        resolution: what the image is reduced to, square, before any network gets it; None: the face as it is.

    Raises:
        InvalidOption: as `Network.maps`, and for no network or different numbers of layers.
        ValueError: outputs that are not finite.
        OSError: from the file system.
    """
    counts = {len(layers) for _, layers in networks}
    if len(counts) != 1:
        raise InvalidOption(f"layers must be as many for each network, one network at least, not {sorted(counts)}")
    face = image if resolution is None else resize(image, (resolution, resolution))
    columns = _columns([layers for _, layers in networks])
    drawn: dict[str, dict[str, NDArray[Any]]] = {}
    rows: list[list[Cell]] = []
    for label, (network, layers) in zip(_labels(networks), networks, strict=True):
        means = {layer: maps.mean(axis=0) for layer, maps in network.maps(face, layers).items()}
        drawn[label] = {"input": resize(face, (network.side,) * 2, filter=network.filter)} | dict(
            zip(columns, means.values(), strict=True)
        )
        for column, (layer, mean) in zip(columns, means.items(), strict=True):
            shape = network.layers[layer].shape
            rows.append([label, column, layer, *shape, float(mean.min()), float(mean.max())])
    names = ["model", "column", "layer", "channels", "height", "width", "lowest", "highest"]
    note = "Each map is the mean over the channels of a layer, from black at its lowest value to white at its highest."
    figure = run.draw("feature_maps", feature_maps(drawn))
    sections = [Section("Feature maps", [], [], note, figure), Section("Layers", names, rows)]
    run.read[image_name] = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
    numbers = {"resolution": resolution, "layers": [dict(zip(names, row, strict=True)) for row in rows]}
    digests = {label: network.digest for label, (network, _) in zip(drawn, networks, strict=True)}
    return run.write("features", "Feature maps", numbers, sections, digests)


def _columns(layers: Sequence[Sequence[str]]) -> list[str]:
    """The layers' names if all networks have the same ones, else numbers, of which a table says what they are."""
    first = list(layers[0])
    return first if all(list(others) == first for others in layers) else [str(i + 1) for i in range(len(first))]


def _labels(networks: Sequence[tuple[Network, Sequence[str]]]) -> list[str]:
    """The networks' names, with numbers where two have one name."""
    names = [network.name for network, _ in networks]
    return [name if names.count(name) == 1 else f"{i + 1}: {name}" for i, name in enumerate(names)]
