"""How long evaluation takes: faces through a model at several resolutions, and all scores of two large sets.

    python benchmarks/evaluation.py --model MODEL --faces FOLDER

FOLDER or a zip has the faces. They are decoded, presented at 112, 28, 14 and 7 px and embedded with flip, into an empty
cache; and once more from it. Then ROWS random embeddings are compared with ROWS others, as for a TAR at a FAR of 1e-6,
and searched in a gallery of as many. Memory is what the process has at most above what it had before, with all
embeddings. Writes results/evaluation.json and a table.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import common
from btnet_eval.cache import EmbeddingCache
from btnet_eval.datasets.images import open_images
from btnet_eval.embedder import Embedder
from btnet_eval.identification import search
from btnet_eval.models import Model, open_model
from btnet_eval.roc import compare_all
from comparing import refuse_others
from publish import publish

RESOLUTIONS = (112, 28, 14, 7)
FAR = 1e-6
BEST = 10
SEED = 0
PEOPLE = 10_000
ROWS, QUICK_ROWS = 100_000, 2_000
DIM = 512
ROUNDS = 3


def embed(model: Model, faces: Path) -> dict[str, float]:
    """Seconds of the first and of the second time."""
    seconds = {}
    with open_images(faces) as images, tempfile.TemporaryDirectory() as folder:
        embedder, names = Embedder(model, EmbeddingCache(folder)), images.names()
        for turn in ("first", "again"):
            start = time.perf_counter()
            embedder.at(images, names, RESOLUTIONS)
            seconds[turn] = time.perf_counter() - start
    return seconds


def measure(work: Callable[[], object]) -> dict[str, dict[str, float]]:
    """Seconds of some work, and how many megabytes the process has at most above what it had before."""
    before = common.memory()["resident"]
    found: dict[str, list[float]] = {"seconds": [], "megabytes": []}
    for _ in range(ROUNDS):
        start = time.perf_counter()
        found["megabytes"].append(common.peak(work) - before)
        found["seconds"].append(time.perf_counter() - start)
    return {part: common.summary(values) for part, values in found.items()}


def compare(rows: int) -> dict[str, Any]:
    """Seconds and megabytes of all scores and of a search."""
    random = np.random.default_rng(SEED)
    a, b = (random.standard_normal((rows, DIM), np.float32) for _ in range(2))
    ids_a, ids_b = (random.integers(0, PEOPLE, rows) for _ in range(2))
    return {
        "rows": rows,
        "matrix_megabytes": 4 * rows**2 / 2**20,
        "scores": measure(lambda: compare_all(a, ids_a, b, ids_b, max_far=FAR).at_far(FAR)),
        "search": measure(partial(search, a, b, BEST)),
    }


def main() -> None:
    """Measure, and write the JSON."""
    parser = common.arguments(__doc__)
    parser.add_argument("--model", required=True, help="name or path of a bundle, or an ONNX model")
    parser.add_argument("--faces", type=Path, required=True)
    options = parser.parse_args()
    print(f"seed {SEED}")
    model = open_model(options.model)
    with open_images(options.faces) as images:
        count = len(images.names())
    settings = {"model": model.name, "images": count, "resolutions": list(RESOLUTIONS), "seed": SEED}
    settings["quick"] = options.quick
    refuse_others(settings, options)
    compared = compare(QUICK_ROWS if options.quick else ROWS)
    turns = [embed(model, options.faces) for _ in range(ROUNDS)]
    embedded = {turn: common.summary([seconds[turn] for seconds in turns]) for turn in turns[0]}
    publish("evaluation", {"settings": settings, "embed": embedded, "compare": compared}, options)


if __name__ == "__main__":
    main()
