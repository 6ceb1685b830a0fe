"""What a user would run instead of btnet: resize every crop to 112, and give batches to a framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

import bundles
from btnet_ext import Bundle

Crops: TypeAlias = Sequence[NDArray[np.uint8]]
Rows: TypeAlias = NDArray[np.float32]
Run: TypeAlias = Callable[[Iterator[Rows]], Rows]
"""Takes blocks of input (n, 3, r, r), returns the embeddings of all."""


def resizer(name: str) -> Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]:
    """Return a function that resizes a crop to a square, bicubic. name: pillow or opencv."""
    if name == "pillow":
        from PIL import Image

        return lambda crop, side: np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.BICUBIC))
    import cv2

    return lambda crop, side: np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def blocks(bundle: Bundle, resize: str, crops: Crops, side: int, batch: int) -> Iterator[Rows]:
    """Resized and normalised crops, `batch` at a time."""
    to_side = resizer(resize)
    mean, std = (np.array(bundle.metadata["input"][key], np.float32) for key in ("mean", "std"))
    for start in range(0, len(crops), batch):
        pixels = np.stack([to_side(crop, side) for crop in crops[start : start + batch]])
        yield np.ascontiguousarray(((pixels - mean) / std).transpose(0, 3, 1, 2))


def with_onnxruntime(bundle: Bundle, precision: str, side: int, batch: int) -> Run:
    """As insightface has it: a session with its defaults, which takes batches of any size."""
    from onnxruntime import InferenceSession

    graph = bundle.path / bundle.metadata["graphs"][precision][str(side)]
    session = InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    return lambda inputs: np.concatenate([session.run(None, {"input": block})[0] for block in inputs])


def with_openvino(bundle: Bundle, precision: str, side: int, batch: int) -> Run:
    """With the hint for throughput and an asynchronous queue, as OpenVINO's documentation advises for many images."""
    import openvino as ov

    import openvino_runs

    core = ov.Core()
    model = openvino_runs.read(core, bundle, precision, side, batch)
    properties = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": openvino_runs.hint(precision)}
    queue = ov.AsyncInferQueue(core.compile_model(model, "CPU", properties))
    done: dict[int, Rows] = {}
    queue.set_callback(lambda request, index: done.update({index: request.get_output_tensor().data.copy()}))

    def run(inputs: Iterator[Rows]) -> Rows:
        done.clear()
        for index, block in enumerate(inputs):
            queue.start_async({0: block}, index)
        queue.wait_all()
        return np.concatenate([done[index] for index in sorted(done)])

    return run


def with_torch(bundle: Bundle, precision: str, side: int, batch: int, *, compiled: bool = False) -> Run:
    """The network that a bundle with random weights was made from, channels last, which is faster on CPUs; f32."""
    import torch

    network = bundles.networks(bundle, [side])[side]
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embedding(block: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = network(block.contiguous(memory_format=torch.channels_last))[0]
        return rows

    # Each batch size has a forward of its own, but all share this code: without dynamic=False, PyTorch would see the
    # second size as a sign of more to come, and compile slower kernels for any.
    forward = torch.compile(embedding, dynamic=False) if compiled else embedding

    def run(inputs: Iterator[Rows]) -> Rows:
        with torch.inference_mode():
            return np.concatenate([forward(torch.from_numpy(block)).numpy() for block in inputs])

    return run


def with_torch_compile(bundle: Bundle, precision: str, side: int, batch: int) -> Run:
    """The same through torch.compile."""
    return with_torch(bundle, precision, side, batch, compiled=True)


RUNNERS: dict[str, Callable[[Bundle, str, int, int], Run]] = {
    "onnxruntime": with_onnxruntime,
    "openvino": with_openvino,
    "torch": with_torch,
    "torch.compile": with_torch_compile,
}
