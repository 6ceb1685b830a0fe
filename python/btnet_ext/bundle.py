"""A trained BTNet on disk: what it is, and whether it is whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from btnet_ext._native import core
from btnet_ext.errors import InvalidOption

INPUT, OUTPUT = "input", "embedding"
"""What every graph of a bundle calls its input and its output."""

MODEL_FILE = "model.json"


def model_text(content: Mapping[str, Any]) -> str:
    """Return the text of model.json. Raises ValueError for what JSON cannot hold."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def describe_file(path: Path) -> dict[str, int | str]:
    """Return what model.json says of a file of the bundle: its bytes, and their SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


class Bundle:
    """One bundle, format 1: a folder with model.json, a graph for each resolution, and the weights they share.

    Open one with `Bundle.open`. What model.json says and where the graphs take their tensors from has been checked by
    then; the contents of the files are what `verify` reads.
    """

    def __init__(self, native: core.Bundle) -> None:
        self._native = native

    @classmethod
    def open(cls, path: str | bytes | os.PathLike[str]) -> Bundle:
        """Read the bundle at `path`. Raises `BundleError`, which says what is wrong with which file."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            raise InvalidOption(f"path must be text or a path, not a {type(path).__name__}")
        return cls(core.Bundle.open(Path(os.fsdecode(path)).absolute()))  # still the same after os.chdir

    @property
    def path(self) -> Path:
        """The bundle's folder."""
        return self._native.path

    @property
    def name(self) -> str:
        """The model's name."""
        return self._native.name

    @property
    def arch(self) -> str:
        """Architecture of the trunk: res18, res34, res50 or res100."""
        return self._native.arch

    @property
    def width(self) -> float:
        """Multiplier of the number of channels; 1.0 is the architecture as published."""
        return self._native.width

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._native.dim

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Resolutions that have a branch, ascending, in pixels."""
        return tuple(self._native.resolutions)

    @property
    def canonical(self) -> int:
        """The resolution that the trunk was made for, 112."""
        return self._native.canonical

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions that the bundle has graphs for."""
        return tuple(self._native.precisions)

    @property
    def license(self) -> str:
        """The licence of the weights."""
        return self._native.license

    @property
    def digest(self) -> str:
        """SHA-256 of model.json, which holds those of all other files: it names the model and its contents."""
        return self._native.digest

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """model.json as it stands: input, selection, thresholds, training and all else."""
        read: dict[str, Any] = json.loads(self._native.metadata)
        return read

    def verify(self) -> None:
        """Read every file and compare its SHA-256 with model.json. Raises `BundleError` for the first that differs."""
        self._native.verify()

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, arch={self.arch!r}, width={self.width}, resolutions={self.resolutions})"
