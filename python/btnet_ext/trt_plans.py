"""Plans, which are engines as TensorRT writes them down, and the folder where they are kept."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from btnet_ext.errors import InvalidOption
from btnet_ext.whole_files import whole_file

FORMAT = b"btnet plan 1\n"
"""First line of a file. It counts up when graphs are made in another way, since plans of before are then old."""

_log = logging.getLogger(__name__)


class Batches(NamedTuple):
    """Sizes of the batches that an engine takes, and the one that it is made for."""

    smallest: int
    best: int
    largest: int

    @classmethod
    def parse(cls, text: str) -> Batches:
        """Read MIN:OPT:MAX. Raises `InvalidOption` for anything else than 1 <= MIN <= OPT <= MAX, 2 <= MAX."""
        parts = text.split(":")
        if len(parts) == 3 and all(part.isascii() and part.isdigit() for part in parts):
            batches = cls(*map(int, parts))
            if 1 <= batches.smallest <= batches.best <= batches.largest >= 2:
                return batches
        raise InvalidOption(f"batch must be MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX and MAX at least 2, not {text!r}")

    def sizes(self) -> list[int]:
        """Return the few sizes that batches are filled up to, ascending: each about twice the one before."""
        sizes = {self.best, self.largest}
        size = self.smallest
        while size < self.largest:
            sizes.add(size)
            size *= 2
        return sorted(sizes)


@dataclass(frozen=True)
class PlanKey:
    """Everything that makes a plan another one."""

    digest: str  # of the bundle
    resolution: int
    precision: str
    batches: Batches
    target: str  # see trt_library.plan_target
    flavour: str  # "tensorrt" or "tensorrt_rtx"
    version: str  # of it


class PlanCache:
    """Plans in files, one for each key but for the version: a plan of another one is replaced.

    A file is `FORMAT`, a line of JSON that says what it holds, and the plan. Files are written under another name,
    flushed and renamed, so that readers see all of a plan or none of it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: PlanKey) -> Path:
        """Where the plan of `key` is, or would be."""
        fields = _as_json(key)
        del fields["version"]
        return self._folder / f"{hashlib.sha256(json.dumps(fields).encode()).hexdigest()}.plan"

    def find(self, key: PlanKey) -> bytes | None:
        """Return the plan, or None where there is none; where one is of no use, the log says why."""
        path = self.path(key)
        try:
            return _unpack(path.read_bytes(), key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self.refuse(key, str(error))
            return None

    def refuse(self, key: PlanKey, reason: str) -> None:
        """Say in the log that a plan is of no use."""
        _log.warning("building again, since the plan %s is of no use: %s", self.path(key), reason)

    def store(self, key: PlanKey, plan: bytes) -> Path:
        """Write a plan, and return where it is. Raises OSError."""
        path = self.path(key)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # a plan of somebody else's is somebody else's code
        with whole_file(path) as append:
            append(_pack(key, plan))
        return path


def _as_json(key: PlanKey) -> dict[str, object]:
    return asdict(key) | {"batches": list(key.batches)}


def _pack(key: PlanKey, plan: bytes) -> bytes:
    description = {"key": _as_json(key), "sha256": hashlib.sha256(plan).hexdigest()}
    return b"".join([FORMAT, json.dumps(description).encode(), b"\n", plan])


def _unpack(content: bytes, key: PlanKey) -> bytes:
    """Return the plan in a file. Raises ValueError that says why it is not that of `key`, or damaged."""
    if not content.startswith(FORMAT):
        raise ValueError("the file is no plan of this version of btnet")
    line, _, plan = content[len(FORMAT) :].partition(b"\n")
    try:
        description = json.loads(line)
        found, checksum = dict(description["key"]), description["sha256"]
    except (ValueError, TypeError, KeyError):
        raise ValueError("the line that describes the plan is damaged") from None
    for field, wanted in _as_json(key).items():
        if found.get(field) != wanted:
            raise ValueError(f"its {field} is {found.get(field)!r}, not {wanted!r}")
    if hashlib.sha256(plan).hexdigest() != checksum:
        raise ValueError("the plan is cut short or damaged")
    return plan
