"""A model with what is known of it already: measurements ask it for the embeddings of images, and wait for the rest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy.typing as npt

from btnet_eval.base import Image, Rows
from btnet_eval.cache import EmbeddingCache, Images
from btnet_eval.datasets.images import NamedImages
from btnet_eval.models import Model
from btnet_ext import resize

Progress: TypeAlias = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and of how much."""


def labelled(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    """What `EmbeddingCache.rows` tells of its progress, for a `Progress`; None for None."""
    return None if progress is None else partial(progress, what)


def in_order(images: NamedImages, names: Sequence[str]) -> Images:
    """Named images as `Embedder.rows` takes them. Raises DataError for those that cannot be read."""
    return Images(images.digest(names), names, lambda index: images.read(names[index]))


@dataclass(frozen=True)
class Embedder:
    """Embeds images by a model, unless the cache has their embeddings.

    progress: told of the model and of what it embeds, or None. Everything raises as `EmbeddingCache.rows`, and
    DataError for images that cannot be read.
    """

    model: Model
    cache: EmbeddingCache
    progress: Progress | None = None

    def rows(self, images: Images, resolution: int | npt.ArrayLike | None = None, *, what: str = "") -> Rows:
        """`EmbeddingCache.rows` of the model. what: follows the model's name where progress is told."""
        return self.cache.rows(
            self.model, images, resolution, progress=labelled(self.progress, f"{self.model.name}{what}")
        )

    def at(self, images: NamedImages, names: Sequence[str], resolutions: Sequence[int]) -> dict[int, Rows]:
        """The embeddings (len(names), D) of named images as `Model.present` shows them, by resolution."""
        task = in_order(images, names)
        return {r: self.rows(task, r, what=f" at {r} px") for r in resolutions}

    def reduced(self, images: NamedImages, names: Sequence[str], sizes: Sequence[int]) -> dict[int, Rows]:
        """As `at`, but with the images reduced to sizes, as a user has them: the model itself makes do with them.

        So a bundle selects a branch for the size, and a model of one network enlarges the image again.
        """
        whole = images.digest(names)
        found = {}
        for size in sizes:

            def read(index: int, size: int = size) -> Image:
                return resize(images.read(names[index]), (size, size))

            task = Images(f"{whole} reduced to {size} px", names, read)
            found[size] = self.rows(task, what=f" at {size} px")
        return found
