"""What an engine costs before it has done anything, in fresh processes: seconds to load, and memory."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import common
import mixes
from btnet_ext import Engine

IMAGES = 32
"""Of each branch, that are embedded before memory is looked at."""


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


def twice(measure: Callable[..., Mapping[str, float]], *arguments: Any, times: int) -> dict[str, Any]:
    """Summaries of what is measured in a fresh process the first time, with an empty cache, and again.

    measure: called with the arguments and the cache's folder; the ratio of its "seconds" is taken in each turn.
    """
    found: dict[str, list[Mapping[str, float]]] = {"first": [], "again": []}
    for _ in range(times):
        with tempfile.TemporaryDirectory() as cache:
            for turns in found.values():
                turns.append(common.in_child(measure, *arguments, cache))
    first, again = ([turn["seconds"] for turn in turns] for turns in found.values())
    summaries = {
        name: {part: common.summary([turn[part] for turn in turns]) for part in turns[0]}
        for name, turns in found.items()
    }
    return {**summaries, "again_to_first": common.ratios(again, first)}
