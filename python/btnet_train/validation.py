"""How well a network does during training, on identities that are held out from it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from btnet_eval.verification import cross_resolution
from btnet_ext import degrade, resize
from btnet_train.face_rows import read_canonical
from btnet_train.networks import IResNet
from btnet_train.objective import normalize
from btnet_train.sources import Faces
from btnet_train.topology import CANONICAL

Images: TypeAlias = NDArray[np.uint8]

_BATCH = 64
_FOLDS = 10


def choose_identities(faces: Faces, count: int) -> list[str]:
    """Return `count` identities to hold out, of those that only the first source has.

    They are the same ones in whatever order the identities come. Raises ValueError for too many.
    """
    elsewhere = set(faces.labels[(faces.labels >= 0) & (faces.source_numbers > 0)].tolist())
    classes = [name for number, name in enumerate(faces.classes) if number not in elsewhere]
    if not 0 <= count <= len(classes) - 2:
        raise ValueError(
            f"{count} of {len(classes)} identities cannot be held out (--held-out): 2 must be left to train on"
        )
    return sorted(classes, key=lambda name: hashlib.sha256(name.encode()).digest())[:count]


class HeldOut:
    """Verification accuracy in percent on pairs of held-out faces, for a network and for it with its trunk.

    The pairs are all of the same person, at most `pairs` / 2, and as many of different people. Embeddings are of
    the image alone, without its mirror image. Raises ValueError if there are no pairs of either kind.
    """

    def __init__(self, faces: Faces, fabric: Fabric, *, pairs: int = 6000, seed: int = 0) -> None:
        self._fabric = fabric
        self._images = read_canonical(faces, range(len(faces)))
        self._first, self._second = draw_pairs(faces.labels, pairs, np.random.default_rng(seed))
        self._same = faces.labels[self._first] == faces.labels[self._second]
        self._folds = np.arange(len(self._same)) % _FOLDS
        self._trunk: tuple[IResNet, NDArray[np.float32]] | None = None

    def measure(self, network: IResNet, trunk: IResNet | None, sides: Sequence[int]) -> Mapping[str, float]:
        """Return accuracies by name, such as "held out 112&28", for a network in evaluation mode.

        The trunk's network is measured on images degraded to each of `sides`; a branch's at its own size, and
        across to the trunk's embeddings at 112 if there is a trunk.
        """
        if network.resolution != CANONICAL:
            own = self._embed(network, partial(resize, size=(network.resolution, network.resolution)))
            columns = {str(network.resolution): own}
            if trunk is not None:
                columns[str(CANONICAL)] = self._of_trunk(trunk)
        else:
            columns = {str(r): self._embed(network, partial(degrade, resolution=r)) for r in sides}
            columns[str(CANONICAL)] = self._embed(network, lambda image: image)
        return {
            f"held out {first}&{second}": self._accuracy(columns[first], columns[second])
            for first in columns
            for second in columns
            if first == second or first == str(CANONICAL)
        }

    def _of_trunk(self, trunk: IResNet) -> NDArray[np.float32]:
        if self._trunk is None or self._trunk[0] is not trunk:
            trunk.to(self._fabric.device)
            self._trunk = (trunk, self._embed(trunk, lambda image: image))
        return self._trunk[1]

    def _accuracy(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
        one, two = ((rows[self._first], rows[self._second]) for rows in (left, right))
        return 100 * cross_resolution(one, two, self._same, self._folds).mean

    def _embed(self, network: nn.Module, prepare: Callable[[Images], Images]) -> NDArray[np.float32]:
        # forward, not call: a compiled network would be compiled again for evaluation.
        blocks: list[Tensor] = []
        with torch.no_grad(), self._fabric.autocast():
            for start in range(0, len(self._images), _BATCH):
                block = np.stack([prepare(image) for image in self._images[start : start + _BATCH]])
                images = self._fabric.to_device(torch.from_numpy(block).permute(0, 3, 1, 2))
                embeddings, _ = network.forward(normalize(images))
                blocks.append(functional.normalize(embeddings.float()).cpu())
        return cast("NDArray[np.float32]", torch.cat(blocks).numpy())


def draw_pairs(
    labels: NDArray[np.int64], pairs: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw places (n,) of as many pairs of one identity as of two; time and memory grow with the pairs of one."""
    people = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    same = np.concatenate([person[np.array(np.triu_indices(len(person), 1))] for person in people], axis=1)
    total = len(labels) * (len(labels) - 1) // 2
    count = min(pairs // 2, same.shape[1], total - same.shape[1])
    if count < _FOLDS:
        raise ValueError(
            f"the identities held out (--held-out) make {count} pairs of each kind, expected {_FOLDS} or more"
        )
    of_one = same[:, generator.choice(same.shape[1], count, replace=False)]
    of_two: dict[tuple[int, int], None] = {}
    while len(of_two) < count:
        first, second = generator.integers(0, len(labels), (2, count))
        keep = (first < second) & (labels[first] != labels[second])
        of_two |= dict.fromkeys(zip(first[keep].tolist(), second[keep].tolist(), strict=True))
    first, second = np.concatenate([of_one, np.array(list(of_two)[:count]).T], axis=1)
    return first, second
