"""What a benchmark does with its results: a JSON, Markdown tables, a figure, and what changed since an earlier run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
from comparing import comparison
from tables_speed import TABLES

FIGURES = Path(__file__).parents[1] / "docs/figures"


def publish(name: str, results: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Write NAME.json and its figure if it has one, print the tables and, with --compare, what changed.

    With --quick all goes to results/quick: the docs show none of it. The options are those of `common.arguments`.
    """
    folder = common.RESULTS / "quick" if options.quick else common.RESULTS
    print(common.write(name, results, folder))
    written = common.load(name, folder)
    for table in TABLES[name].values():
        print(f"\n{table(written)}")
    import figures  # here, since what it needs takes memory that was not to be measured

    if name in figures.FIGURES:
        for path in figures.write(name, written, folder if options.quick else FIGURES):
            print(path)
    if options.compare:
        try:
            print(f"\n{comparison(options.compare, written)}")
        except ValueError as error:
            sys.exit(f"--compare: {error}")
