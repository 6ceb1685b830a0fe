"""Fill the tables of the docs from the JSON files in results/, and from the recipes.

    python benchmarks/report.py [--check]

Each table stands between `<!-- NAME -->` and `<!-- end -->`. With --check nothing is written, and the exit code is 1
if a page is not what the files say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import tables_training
from btnet_train.recipes import load as load_recipe
from btnet_train.recipes import names as recipe_names
from common import RESULTS, load, table
from tables_overview import faster, more_accurate, targets
from tables_speed import for_pages

DOCS = RESULTS.parents[1] / "docs"


def recipes() -> str:
    """The recipes that come with btnet-train."""
    rows = [[f"`{name}`", load_recipe(name).description] for name in recipe_names()]
    return table(["recipe", "what"], rows)


def gpu_bytes() -> str:
    """Bytes that the CUDA kernels move, and what that means on paper."""
    results = load("gpu_bytes")
    rows = []
    for name, kernel in results["kernels"].items():
        times = [
            f"{micro['least']:.0f} / {micro['moved']:.0f} / {micro['arithmetic']:.0f}"
            for micro in kernel["microseconds"].values()
        ]
        megabytes = [f"{kernel[part] / 1e6:.1f}" for part in ("moved", "least")]
        rows.append([name, *megabytes, f"{kernel['moved'] / kernel['least']:.2f}", *times])
    header = ["kernel", "moved, MB", "least, MB", "moved / least"]
    return table([*header, *(f"{gpu}, µs" for gpu in results["gpus"])], rows)


SPEED = (
    "accuracy",
    "costs",
    "flame_graph",
    "flops_latency",
    "memory_use",
    "mixed_batch",
    "peers",
    "resample",
)
"""The JSON files of docs/performance.md."""

PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "../README.md": {"faster": faster, "more_accurate": more_accurate},
    "performance.md": {"targets": targets, **for_pages(SPEED)},
    "training.md": {"recipes": recipes},
    "gpu.md": {"gpu_bytes": gpu_bytes},
    "results.md": {
        "trained_accuracy": tables_training.accuracy,
        "trained_compared": tables_training.compared,
        "trained_shipped": tables_training.shipped,
        "int8": tables_training.int8,
        "trained_gains": tables_training.gains,
        "trained_cost": tables_training.cost,
        "verification": partial(tables_training.rates, "verification"),
        "identification": partial(tables_training.rates, "identification"),
    },
}


def fill(page: Path, tables: Mapping[str, Callable[[], str]]) -> str:
    """Return the text of a page with its tables."""
    text = page.read_text()
    for name, make in tables.items():
        before, mark, after = text.partition(f"<!-- {name} -->\n")
        _, end, rest = after.partition("<!-- end -->")
        if not (mark and end):
            raise ValueError(f"{page} has no place for the table {name}")
        text = f"{before}{mark}{make()}\n{end}{rest}"
    return text


def main() -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    wrong = 0
    for name, tables in PAGES.items():
        page = DOCS / name
        filled = fill(page, tables)
        if check and filled != page.read_text():
            print(f"{page} is not what the results say: run python benchmarks/report.py", file=sys.stderr)
            wrong = 1
        elif not check:
            page.write_text(filled)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
