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

    maps: float16 (faces, 2, s, s, C), embeddings: float32 (faces, 2, D); the second column is for the mirror images.
    """

    def __init__(self, maps: NDArray[np.float16], embeddings: NDArray[np.float32]) -> None:
        self._maps, self._embeddings = maps, embeddings

    def of(self, indices: Tensor, flips: Tensor) -> Distilled:
        """Return those of faces by their numbers (n,); flips: bool (n,), which of them are seen as mirror images."""
        chosen = indices.numpy(), flips.numpy().astype(np.int64)
        maps = torch.from_numpy(self._maps[chosen].astype(np.float32)).permute(0, 3, 1, 2)  # channels last
        return Distilled(maps, torch.from_numpy(self._embeddings[chosen]))


def trunk_outputs(
    trunk: IResNet, digest: str, faces: FaceImages, stages: Sequence[int], folder: Path, device: torch.device
) -> dict[int, TrunkOutputs]:
    """Return the outputs of a trunk by stage, with maps of the coupling layers of `stages`, each 1 to 4.

    They are computed once, on `device` and in float32, and kept in `folder` as trunk_<digest>.npy (see `face_rows`),
    which names the trunk, the faces and the stages. digest: stands for the trunk's weights.

    Raises DataError for an image that cannot be used, ValueError for maps that float16 cannot hold, and OSError.
    """
    stages = sorted(set(stages))
    trunk = trunk.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    stem = trunk.conv1.out_channels
    sides = {stage: CANONICAL // 2**stage for stage in stages}
    fields = [(f"maps{stage}", "<f2", (side, side, stem * 2 ** (stage - 1))) for stage, side in sides.items()]
    dtype = np.dtype([*fields, ("embedding", "<f4", (trunk.dim,))])

    def compute(indices: Sequence[int]) -> NDArray[Any]:
        images = read_canonical(faces, indices)
        rows = np.empty((len(images), 2), dtype)
        for column, seen in enumerate((images, images[:, :, ::-1])):
            view = torch.from_numpy(np.ascontiguousarray(seen)).permute(0, 3, 1, 2).to(device)
            with torch.inference_mode():
                embeddings, maps = trunk(normalize(view))
            for stage in stages:
                with np.errstate(over="ignore"):  # noticed below
                    rows[f"maps{stage}"][:, column] = maps[stage - 1].permute(0, 2, 3, 1).cpu().numpy()
            rows["embedding"][:, column] = embeddings.cpu().numpy()
        for stage in stages:
            if not np.isfinite(rows[f"maps{stage}"]).all():
                raise ValueError(f"the trunk's maps at stage {stage} have values that half precision cannot hold")
        return rows

    key = hashlib.sha256(f"{digest} {faces.digest} {stages}".encode()).hexdigest()
    rows = face_rows(folder / f"trunk_{key}.npy", faces, dtype, (2,), compute, title="trunk")
    return {stage: TrunkOutputs(rows[f"maps{stage}"], rows["embedding"]) for stage in stages}
