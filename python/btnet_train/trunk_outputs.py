"""What a frozen trunk gives for every face, computed once: a branch would have it computed again in each pass."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from btnet_train.face_rows import FaceImages, face_rows, read_canonical
from btnet_train.networks import IResNet
from btnet_train.objective import Distilled, normalize
from btnet_train.topology import CANONICAL


class TrunkOutputs:
    """The trunk's maps at a coupling layer and its embeddings, of all faces and of their mirror images.

    rows: structured (faces, 2), the second column for the mirror images, with "maps", float16 (s, s, C), and
    "embedding", float32 (D,).
    """

    def __init__(self, rows: NDArray[Any]) -> None:
        self._rows = rows

    def of(self, indices: Tensor, flips: Tensor) -> Distilled:
        """Return those of faces by their numbers (n,); flips: bool (n,), which of them are seen as mirror images."""
        rows = self._rows[indices.numpy(), flips.numpy().astype(np.int64)]
        maps = torch.from_numpy(rows["maps"].astype(np.float32)).permute(0, 3, 1, 2)  # channels last
        return Distilled(maps, torch.from_numpy(np.ascontiguousarray(rows["embedding"])))


def trunk_outputs(
    trunk: IResNet, digest: str, faces: FaceImages, stage: int, folder: Path, device: torch.device
) -> TrunkOutputs:
    """Return the outputs of a trunk, with maps of the coupling layer of `stage`, 1 to 4.

    They are computed once, on `device` and in float32, and kept in `folder` as trunk_<digest>.npy (see `face_rows`),
    which names the trunk, the faces and the stage. digest: stands for the trunk's weights.

    Raises DataError for an image that cannot be used, ValueError for maps that float16 cannot hold, and OSError.
    """
    trunk = trunk.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    side = CANONICAL // 2**stage
    channels = trunk.conv1.out_channels * 2 ** (stage - 1)
    dtype = np.dtype([("maps", "<f2", (side, side, channels)), ("embedding", "<f4", (trunk.dim,))])

    def compute(indices: Sequence[int]) -> NDArray[Any]:
        images = read_canonical(faces, indices)
        rows = np.empty((len(images), 2), dtype)
        for column, seen in enumerate((images, images[:, :, ::-1])):
            view = torch.from_numpy(np.ascontiguousarray(seen)).permute(0, 3, 1, 2).to(device)
            with torch.inference_mode():
                embeddings, maps = trunk(normalize(view))
            with np.errstate(over="ignore"):  # noticed below
                rows["maps"][:, column] = maps[stage - 1].permute(0, 2, 3, 1).cpu().numpy()
            rows["embedding"][:, column] = embeddings.cpu().numpy()
        if not np.isfinite(rows["maps"]).all():
            raise ValueError(f"the trunk's maps at stage {stage} have values that half precision cannot hold")
        return rows

    key = hashlib.sha256(f"{digest} {faces.digest} {stage}".encode()).hexdigest()
    return TrunkOutputs(face_rows(folder / f"trunk_{key}.npy", faces, dtype, (2,), compute, title="trunk"))
