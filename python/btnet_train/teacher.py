"""Another face model as a teacher: any ONNX model, run on the CPU by OpenVINO, and its embeddings of all faces."""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from btnet_eval.onnx_network import UnsuitableNetworkError, compile_network, read_network, with_normalization
from btnet_train.face_rows import FaceImages, face_rows, read_canonical
from btnet_train.topology import CANONICAL


class TeacherError(ValueError):
    """A file that is no face model for 112 px, or one that gives no embedding; one sentence says what is wrong."""


class Teacher:
    """A face model in ONNX, ready to run: one input (1 or N, 3, 112, 112), one output (N, dim).

    mean, std: for each channel, in the order of `color`; the model gets (pixel - mean) / std with pixels from 0
    to 255. color: "rgb" or "bgr", the order of the model's input. dim: length of an embedding. digest: SHA-256 over
    the model, its external weights and how it is given images: tells whether it is the same teacher.

    The model computes in float32, one image in a request and several requests at a time: that is the fastest way
    for small networks, and no embedding depends on the images beside it.

    Raises TeacherError for another model or file, ValueError that names the argument, and OSError.
    """

    dim: int
    digest: str

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mean: Sequence[float] = (127.5, 127.5, 127.5),
        std: Sequence[float] = (127.5, 127.5, 127.5),
        color: str = "rgb",
    ) -> None:
        if len(mean) != 3 or not all(map(math.isfinite, mean)):
            raise ValueError(f"mean must be three finite numbers, got {mean!r}")
        if len(std) != 3 or not all(0 < value < math.inf for value in std):
            raise ValueError(f"std must be three positive, finite numbers, got {std!r}")
        if color not in ("rgb", "bgr"):
            raise ValueError(f"color must be rgb or bgr, got {color!r}")
        path = Path(path)
        options = {"mean": list(map(float, mean)), "std": list(map(float, std)), "color": color}
        self.digest = hashlib.sha256(f"{_digest_of_model(path)} {json.dumps(options)}".encode()).hexdigest()
        config = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
        core = ov.Core()
        try:
            model = read_network(core, path)
            self.dim = model.output().shape[1]
            compiled = compile_network(core, with_normalization(model, mean, std, color), config)
        except UnsuitableNetworkError as error:
            raise TeacherError(f"{path} {error}") from error
        self._queue = ov.AsyncInferQueue(compiled)

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the raw embeddings (n, dim) of RGB images, uint8 (n, 112, 112, 3). One thread at a time."""
        if images.dtype != np.uint8 or images.shape[1:] != (CANONICAL, CANONICAL, 3):
            raise ValueError(f"images must be uint8 (n, 112, 112, 3), got {images.dtype} {images.shape}")
        embeddings = np.empty((len(images), self.dim), np.float32)

        def keep(request: Any, row: int) -> None:
            embeddings[row] = request.get_output_tensor().data[0]

        self._queue.set_callback(keep)
        for row in range(len(images)):
            self._queue.start_async({0: images[row : row + 1]}, row)
        self._queue.wait_all()
        return embeddings


def teacher_targets(teacher: Teacher, faces: FaceImages, folder: Path) -> NDArray[np.float32]:
    """Return what the teacher says of each face: (len(faces), teacher.dim), rows of length 1, mapped read-only.

    A target is the sum of the embeddings of the image, resized to 112 px where it is not, and of its mirror
    image, normalised. They are computed once and kept in `folder` as teacher_<digest>.npy (see `face_rows`), which
    names the teacher and the faces.

    Raises TeacherError for an embedding that is zero or not finite, DataError, and OSError that names the file.
    """
    key = hashlib.sha256(f"{teacher.digest} {faces.digest}".encode()).hexdigest()

    def compute(indices: Sequence[int]) -> NDArray[np.float32]:
        return _targets(teacher, faces, indices)

    return face_rows(
        folder / f"teacher_{key}.npy", faces, "<f4", (teacher.dim,), compute, title="teacher", check=_check_lengths
    )


def _digest_of_model(path: Path) -> str:
    """Return the SHA-256 of an ONNX file and of the files its tensors lie in. TeacherError if it is no ONNX."""
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise TeacherError(f"{path} is no ONNX model, or is damaged") from None
    if not model.graph.node:
        raise TeacherError(f"{path} is no ONNX model: it has no graph")
    external = {
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    digest = hashlib.sha256(content)
    for location in sorted(external):
        digest.update((path.parent / location).read_bytes())
    return digest.hexdigest()


def _check_lengths(targets: NDArray[np.float32]) -> None:
    """Raise ValueError unless all rows have the length 1."""
    for start in range(0, len(targets), 2**16):
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(targets[start : start + 2**16], axis=1)
        wrong = ~(np.abs(norms - 1) < 1e-3)  # also where it is not a number
        if wrong.any():
            raise ValueError(f"row {start + int(wrong.argmax())} has not the length 1")


def _targets(teacher: Teacher, faces: FaceImages, indices: Sequence[int]) -> NDArray[np.float32]:
    """Return the targets of some faces, (len(indices), dim)."""
    images = read_canonical(faces, indices)
    embeddings = teacher.embed(np.concatenate([images, images[:, :, ::-1]])).astype(np.float64)
    sums = embeddings[: len(images)] + embeddings[len(images) :]
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    for index, norm in zip(indices, norms, strict=True):
        if not 0 < norm < math.inf:
            raise TeacherError(f"the teacher's embedding of {faces.names[index]} is zero or not finite")
    targets: NDArray[np.float32] = (sums / norms).astype("<f4")
    return targets
