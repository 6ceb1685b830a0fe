"""What an engine costs before it has done anything: seconds to load, and memory. Call it in a fresh process."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import common

IMAGES = 32
"""Of each branch, that are embedded before memory is looked at."""


def load(bundle: str, resolutions: Sequence[int], cache: str, options: dict[str, Any]) -> dict[str, float]:
    """Seconds that an engine takes to load, and MiB that this process has more after one batch.

    cache: the folder of compiled networks; the first engine that finds an empty one compiles, and fills it.
    options: of the engine.
    """
    from btnet_ext import Engine

    os.environ["BTNET_CACHE"] = cache
    before = common.memory()
    start = time.perf_counter()
    engine = Engine(bundle, resolutions=resolutions, **options)
    seconds = time.perf_counter() - start
    engine.embed([np.zeros((side, side, 3), np.uint8) for side in resolutions for _ in range(IMAGES)])
    after = common.memory()
    return {"seconds": seconds, **{part: after[part] - before[part] for part in before}}
