"""What an engine costs before it has done anything: seconds to load, and memory, in fresh processes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import common
import mixes
from btnet_ext import Engine

IMAGES = 32
"""Of each branch, that are embedded before memory is looked at."""


def load(bundle: str, resolutions: Sequence[int], cache: str, options: dict[str, Any]) -> dict[str, float]:
    """Seconds that an engine takes to load, and MiB that this process has more after one batch.

    It is called in a fresh process. cache: the folder of compiled networks; the first engine that finds an empty one
    compiles, and fills it. options: of the engine.
    """
    os.environ["BTNET_CACHE"] = cache
    before = common.memory()
    start = time.perf_counter()
    engine = Engine(bundle, resolutions=resolutions, **options)
    seconds = time.perf_counter() - start
    engine.embed([crop for side in resolutions for crop in mixes.squares(side, IMAGES)])
    return {"seconds": seconds, **grown(before)}


def grown(before: Mapping[str, float]) -> dict[str, float]:
    """MiB that this process has more than `before`, what `common.memory` said then."""
    return {part: value - before[part] for part, value in common.memory().items()}


def loads(bundle: str, resolutions: Sequence[int], options: dict[str, Any], times: int) -> dict[str, Any]:
    """Summaries of `load` the first time, with an empty cache, and again; the ratio of their seconds in each turn."""
    found: dict[str, list[dict[str, float]]] = {"first": [], "again": []}
    for _ in range(times):
        with tempfile.TemporaryDirectory() as cache:
            for turns in found.values():
                turns.append(common.in_child(load, bundle, list(resolutions), cache, options))
    first, again = ([turn["seconds"] for turn in turns] for turns in found.values())
    return {name: summaries(turns) for name, turns in found.items()} | {"again_to_first": common.ratios(again, first)}


def summaries(turns: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Summary of each part that was measured in each turn."""
    return {part: common.summary([turn[part] for turn in turns]) for part in turns[0]}
