"""Another face model as a teacher: what any ONNX model gives for all faces."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from btnet_eval.base import DataError
from btnet_eval.onnx_network import FaceNetwork
from btnet_train.face_rows import FaceImages, face_rows, read_canonical


def teacher_targets(teacher: FaceNetwork, faces: FaceImages, folder: Path) -> NDArray[np.float32]:
    """Return what the teacher says of each face: (len(faces), teacher.dim), rows of length 1, mapped read-only.

    A target is the sum of the embeddings of the image, resized to 112 px where it is not, and of its mirror
    image, normalised. They are computed once and kept in `folder` as teacher_<digest>.npy (see `face_rows`), which
    names the teacher and the faces.

    Raises DataError, also for an embedding that is zero or not finite, and OSError that names the file.
    """
    key = hashlib.sha256(f"{teacher.digest} {faces.digest}".encode()).hexdigest()

    def compute(indices: Sequence[int]) -> NDArray[np.float32]:
        return _targets(teacher, faces, indices)

    return face_rows(
        folder / f"teacher_{key}.npy", faces, "<f4", (teacher.dim,), compute, title="teacher", check=_check_lengths
    )


def _check_lengths(targets: NDArray[np.float32]) -> None:
    """Raise ValueError unless all rows have the length 1."""
    for start in range(0, len(targets), 2**16):
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(targets[start : start + 2**16], axis=1)
        wrong = ~(np.abs(norms - 1) < 1e-3)  # also where it is not a number
        if wrong.any():
            raise ValueError(f"row {start + int(wrong.argmax())} has not the length 1")


def _targets(teacher: FaceNetwork, faces: FaceImages, indices: Sequence[int]) -> NDArray[np.float32]:
    """Return the targets of some faces, (len(indices), dim)."""
    images = read_canonical(faces, indices)
    embeddings = teacher.embed([*images, *images[:, :, ::-1]]).astype(np.float64)
    sums = embeddings[: len(images)] + embeddings[len(images) :]
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    for index, norm in zip(indices, norms, strict=True):
        if not 0 < norm < math.inf:
            raise DataError(f"the teacher's embedding of {faces.names[index]} is zero or not finite")
    targets: NDArray[np.float32] = (sums / norms).astype("<f4")
    return targets
