"""Adds 8-bit graphs to a bundle, calibrated with faces, and measures how far they are from those in float32."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from btnet_ext._native import core as native
from btnet_ext.bundle import MODEL_FILE, Bundle, describe_file, model_text
from btnet_ext.calibration import Floats, embed, layers_in_float, quantize_graph, row_cosines
from btnet_ext.errors import BtnetError, InvalidOption
from btnet_ext.images import Pixels, as_pixel_list
from btnet_ext.onnx_graphs import read_graph, without_casts
from btnet_ext.weights_file import WEIGHTS, WeightsFile
from btnet_ext.whole_files import whole_directory

_PRECISION = "int8"


def default_least_cosine(resolution: int) -> float:
    """Return below which mean cosine to the embeddings in float32 a graph in 8 bits is not written."""
    return 0.98 if resolution < 28 else 0.99


@dataclass(frozen=True)
class Agreement:
    """Cosines between the calibration faces' embeddings in 8 bits and in float32; the layers that stay in float32."""

    mean: float
    lowest: float
    kept: tuple[str, ...]


def quantize(
    bundle: Bundle,
    faces: Sequence[Pixels],
    out: Path | None = None,
    *,
    least_cosine: Mapping[int, float] = MappingProxyType({}),
    progress: Callable[[int, float], None] = lambda resolution, done: None,
) -> dict[int, Agreement]:
    """Add graphs for the precision "int8" to a bundle, which replace those that it may have.

    The graphs for "f32" stay as they are, and so do their tensors and where these lie. A weight that branches share is
    stored once. The result appears whole or not at all.

    Args:
        bundle: it is replaced by the new one, unless `out` is given.
        faces: aligned crops, RGB, as `Engine.embed` takes them, like those that are to be embedded; each branch is
            calibrated with all of them, resized to it.
        out: where the new bundle goes; nothing may be there. None: in the place of the one that was opened.
        least_cosine: by resolution, the least mean cosine between the embeddings of the faces in 8 bits and in float32;
            where none is given, that of `default_least_cosine`. Layers are kept in float32 to reach it.
        progress: called with a resolution and the part of its calibration that is done.

    Returns:
        What was measured, by resolution; model.json says the same under "quantization".

    Raises:
        BackendUnavailable: NNCF is not installed.
        BtnetError: a branch stays below its least cosine.
        BundleError: the bundle is damaged.
        InvalidImage: what is given as faces cannot be embedded.
        InvalidOption: no faces, a limit for a branch that is not there, or one that is not between 0 and 1.
        OSError: from the file system.
    """
    limits = {resolution: default_least_cosine(resolution) for resolution in bundle.resolutions}
    limits |= _checked(least_cosine, bundle)
    images = as_pixel_list(faces)
    if not images:
        raise InvalidOption("faces must be one image or more to calibrate with, got none")
    if out is not None and (out.exists() or out.is_symlink()):
        raise FileExistsError(f"{out} exists: it is not overwritten")
    bundle.verify()
    agreements: dict[int, Agreement] = {}
    # Where the bundle was opened through a link, or as ".", the folder itself is replaced.
    with whole_directory(out or bundle.path.resolve()) as folder:
        with _copy(bundle, folder) as weights:
            for resolution in reversed(bundle.resolutions):
                graph = without_casts(read_graph(bundle, resolution, "f32"))
                inputs = _inputs(bundle, images, resolution)
                reference = embed(graph, inputs)
                done = partial(progress, resolution)
                quantized = quantize_graph(graph, inputs, reference, limits[resolution], done)
                agreements[resolution] = _agreement(quantized, inputs, reference)
                _check(agreements[resolution], resolution, limits[resolution])
                content = _with_external_tensors(quantized, weights).SerializeToString(deterministic=True)
                (folder / _graph_name(resolution)).write_bytes(content)
        _write_model_file(bundle, folder, agreements, len(images))
    return agreements


def _checked(least_cosine: Mapping[int, float], bundle: Bundle) -> Mapping[int, float]:
    for resolution, limit in least_cosine.items():
        if resolution not in bundle.resolutions:
            raise InvalidOption(f"least_cosine names the resolution {resolution}, but {bundle.name} has no such branch")
        if not 0 < limit < 1:
            raise InvalidOption(f"least_cosine must be above 0 and below 1, got {limit!r} for {resolution}")
    return least_cosine


@contextmanager
def _copy(bundle: Bundle, folder: Path) -> Iterator[WeightsFile]:
    """Copy a bundle without model.json and what only its 8-bit graphs need; yield its weights, to add to."""
    graphs = {precision: set(names.values()) for precision, names in bundle.metadata["graphs"].items()}
    dropped = graphs.pop(_PRECISION, set()) - set().union(*graphs.values())
    for name in bundle.metadata["files"].keys() - dropped - {WEIGHTS}:
        shutil.copyfile(bundle.path / name, folder / name)
    places = {place for names in graphs.values() for name in names for place in _places(bundle.path / name)}
    with (folder / WEIGHTS).open("xb") as file:
        weights = WeightsFile(file)
        if places:
            old = np.memmap(bundle.path / WEIGHTS, np.uint8, "r").data
            file.write(old[: max(offset + length for offset, length in places)])
            for offset, length in sorted(places):
                weights.know(old[offset : offset + length].tobytes(), offset)
        yield weights


def _places(path: Path) -> Iterator[tuple[int, int]]:
    """Yield offsets and lengths, in bytes, of a graph's tensors in the file of weights."""
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        if uses_external_data(tensor):
            info = ExternalDataInfo(tensor)
            if info.location == WEIGHTS:
                element = helper.tensor_dtype_to_np_dtype(tensor.data_type)
                yield int(info.offset or 0), math.prod(tensor.dims) * element.itemsize


def _inputs(bundle: Bundle, faces: Sequence[Pixels], resolution: int) -> Floats:
    """Return faces (n, 3, r, r) as the network of a resolution gets them."""
    given = bundle.metadata["input"]
    swap = given["color"] == "bgr"
    prepare = partial(
        native.resize_normalize, height=resolution, width=resolution, mean=given["mean"], std=given["std"]
    )
    return np.stack([prepare(face, swap_red_blue=swap, mirror=False, filter=given["filter"]) for face in faces])


def _agreement(quantized: onnx.ModelProto, inputs: Floats, reference: Floats) -> Agreement:
    cosines = row_cosines(embed(quantized, inputs), reference)
    return Agreement(float(cosines.mean()), float(cosines.min()), tuple(layers_in_float(quantized)))


def _check(found: Agreement, resolution: int, limit: float) -> None:
    if not found.mean >= limit:  # nor where it is not a number
        raise BtnetError(
            f"the mean cosine between embeddings in 8 bits and in float32 is {found.mean:.4f} at {resolution} px, "
            f"expected {limit:g} or more: the bundle is not written"
        )


def _with_external_tensors(graph: onnx.ModelProto, weights: WeightsFile) -> onnx.ModelProto:
    """Move all tensors but single numbers into the file of weights."""
    moved = onnx.ModelProto()
    moved.CopyFrom(graph)
    moved.producer_name = "btnet"
    for tensor in moved.graph.initializer:
        if tensor.dims:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(weights.add(tensor.name, values, values.shape))
    return moved


def _graph_name(resolution: int) -> str:
    return f"branch_{resolution}_int8.onnx"


def _write_model_file(bundle: Bundle, folder: Path, agreements: Mapping[int, Agreement], faces: int) -> None:
    names = {str(resolution): _graph_name(resolution) for resolution in bundle.resolutions}
    measured = {str(resolution): asdict(agreements[resolution]) for resolution in bundle.resolutions}
    content = bundle.metadata | {
        "graphs": bundle.metadata["graphs"] | {_PRECISION: names},
        "files": {file.name: describe_file(file) for file in sorted(folder.iterdir())},
        "quantization": {"nncf": version("nncf"), "faces": faces, "cosine": measured},
    }
    (folder / MODEL_FILE).write_text(model_text(content), encoding="utf-8")
