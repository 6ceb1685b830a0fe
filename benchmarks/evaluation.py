"""How long evaluation takes: faces through a model at several resolutions, and all scores of two large sets.

    python benchmarks/evaluation.py --model MODEL --data FOLDER [--rows 100000] [--dim 512]

FOLDER or a zip has the faces. They are decoded, presented at 112, 28, 14 and 7 px and embedded with flip, into an empty
cache; and once more from it. Then ROWS random embeddings are compared with ROWS others, as for a TAR at a FAR of 1e-6,
and searched in a gallery of as many. Writes results/evaluation.json.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from btnet_eval.cache import EmbeddingCache
from btnet_eval.datasets.images import open_images
from btnet_eval.identification import search
from btnet_eval.models import open_model
from btnet_eval.roc import compare_all
from btnet_eval.session import embed_at
from common import write

RESOLUTIONS = (112, 28, 14, 7)
FAR = 1e-6
SEED = 0
PEOPLE = 10_000


def timed(work: Callable[[], Any]) -> float:
    """Seconds that work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak() -> float:
    """Megabytes (2^20) that the process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def embed(model: str, data: Path) -> dict[str, Any]:
    """Seconds of the first and of the second time."""
    measured = open_model(model)
    with open_images(data) as images, tempfile.TemporaryDirectory() as folder:
        cache, names = EmbeddingCache(folder), images.names()
        first, again = (timed(lambda: embed_at(measured, images, names, RESOLUTIONS, cache)) for _ in range(2))
    return {"model": measured.name, "images": len(names), "resolutions": RESOLUTIONS, "first": first, "again": again}


def compare(rows: int, dim: int) -> dict[str, Any]:
    """Seconds, and what the peak of memory rose by over that of the embeddings, of all scores and of a search."""
    random = np.random.default_rng(SEED)
    a, b = (random.standard_normal((rows, dim), np.float32) for _ in range(2))
    ids_a, ids_b = (random.integers(0, PEOPLE, rows) for _ in range(2))
    before = peak()
    scores = timed(lambda: compare_all(a, ids_a, b, ids_b, max_far=FAR).at_far(FAR))
    after_scores = peak()
    searched = timed(lambda: search(a, b, 10))
    return {
        "rows": rows,
        "dim": dim,
        "embeddings_megabytes": 2 * a.nbytes / 2**20,
        "matrix_megabytes": 4 * rows**2 / 2**20,
        "scores": {"seconds": scores, "megabytes": after_scores - before},
        "search": {"seconds": searched, "megabytes": peak() - before},
    }


def main() -> None:
    """Measure, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    options = parser.parse_args()
    # First what is large: the peak of memory is that of the whole process.
    compared = compare(options.rows, options.dim)
    write("evaluation", {"embed": embed(options.model, options.data), "compare": compared})


if __name__ == "__main__":
    main()
