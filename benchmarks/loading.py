"""What an engine costs before it has done anything, in fresh processes: seconds to load, and memory."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import common
import mixes
from btnet_ext import Engine

IMAGES = 32
"""Of each branch, that are embedded before memory is looked at."""

_Name = TypeVar("_Name", bound=Hashable)


def load(bundle: str, resolutions: Sequence[int], options: dict[str, Any], cache: str) -> dict[str, float]:
    """Seconds until an engine has embedded a crop of each branch, and MiB that this process has more after a batch.

    It is called in a fresh process. options: of the engine. cache: the folder of compiled networks; the first engine
    that finds an empty one compiles, and fills it.
    """
    os.environ["BTNET_CACHE"] = cache
    before = common.memory()
    start = time.perf_counter()
    engine = Engine(bundle, resolutions=resolutions, **options)
    engine.embed([crop for side in resolutions for crop in mixes.squares(side, 1)])
    seconds = time.perf_counter() - start
    engine.embed([crop for side in resolutions for crop in mixes.squares(side, IMAGES)])
    return {"seconds": seconds, **grown(before)}


def grown(before: Mapping[str, float]) -> dict[str, float]:
    """MiB that this process has more than `before`, what `common.memory` said then."""
    return {part: value - before[part] for part, value in common.memory().items()}


def twice(ways: Mapping[_Name, Callable[[str], Mapping[str, float]]], *, times: int) -> dict[_Name, dict[str, Any]]:
    """Summaries by way of what it measures in a fresh process the first time, with an empty cache, and again.

    ways: called with the cache's folder; all take turns. The ratio of its "seconds" is taken in each turn.
    """
    found: dict[_Name, list[tuple[Mapping[str, float], Mapping[str, float]]]] = {name: [] for name in ways}
    for _ in range(times):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as cache:
                found[name].append((common.in_child(way, cache), common.in_child(way, cache)))
    return {name: _summaries(turns) for name, turns in found.items()}


def _summaries(turns: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> dict[str, Any]:
    first, again = zip(*turns, strict=True)
    summaries: dict[str, Any] = {
        name: {part: common.summary([turn[part] for turn in of]) for part in of[0]}
        for name, of in (("first", first), ("again", again))
    }
    seconds = ([turn["seconds"] for turn in of] for of in (again, first))
    return {**summaries, "again_to_first": common.ratios(*seconds)}
