"""What the modules of this package pass to each other: images, embeddings, models as functions, and bad data."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""H x W x 3, RGB."""

Rows: TypeAlias = NDArray[np.float32]
"""Embeddings (n, D), of any length but zero."""

Embed: TypeAlias = Callable[[Sequence[Image]], Rows]
"""A model: images of any sizes to embeddings, in the same order."""


class DataError(ValueError):
    """Data that cannot be used; the message is one sentence that names the file and, where there is one, the line."""


class Problems:
    """What is wrong with data but can be left out: an exception for each, or a count for the report.

    strict: whether the first problem raises `DataError`.
    """

    KEPT = 20
    """So many messages are kept; all are counted."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._messages: list[str] = []
        self.count = 0

    def report(self, message: str) -> None:
        """Note a problem in one sentence, which names the file and the line."""
        if self._strict:
            raise DataError(message)
        self.count += 1
        if len(self._messages) < self.KEPT:
            self._messages.append(message)

    @property
    def messages(self) -> tuple[str, ...]:
        """The first ones, in order."""
        return tuple(self._messages)
