"""Fill the tables of the docs from the JSON files in results/, and from the recipes.

    python benchmarks/report.py [--check]

Each table stands between `<!-- NAME -->` and `<!-- end -->`. With --check nothing is written, and the exit code is 1
if a page is not what the files say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import tables_training
from btnet_train.recipes import load as load_recipe
from btnet_train.recipes import names as recipe_names
from common import RESULTS, load, place, table

DOCS = RESULTS.parents[1] / "docs"


def accuracy() -> str:
    """Cosine to PyTorch, for each branch."""
    results = load("accuracy")
    rows = []
    for resolution in sorted(results["cosine"]["f32"], key=int, reverse=True):
        f32, bf16 = (results["cosine"][precision][resolution] for precision in ("f32", "bf16"))
        others = results["median_cosine_of_two_crops"][resolution]
        rows.append(
            [resolution, f"{f32['lowest']:.12f}", f"{bf16['lowest']:.6f}", f"{bf16['mean']:.6f}", f"{others:.3f}"]
        )
    header = ["branch", "f32, lowest", "bf16, lowest", "bf16, mean", "two different crops, median"]
    return f"{results['crops']} crops. {place(results)}\n\n{table(header, rows)}"


def mixed_batch() -> str:
    """The engine against OpenVINO's own API."""
    results = load("mixed_batch")
    rows = []
    for precision, result in results["precision"].items():
        rates = [f"{r['images_per_second']:.1f}" for r in reversed(result["openvino"].values())]
        rows.append([precision, f"{result['ratio']['median']:.3f}", f"{result['ratio']['spread']:.1%}", *rates])
    branches = reversed(results["precision"]["f32"]["openvino"])
    header = ["precision", "engine / ideal", "spread", *(f"OpenVINO at {r}, images/s" for r in branches)]
    return f"{results['arch']}, width {results['width']}. {place(results)}\n\n{table(header, rows)}"


def memory_use() -> str:
    """Memory of engine and naive use, and of a stream."""
    results = load("memory_use")
    kinds = {"first": "engine, first time", "engine": "engine, from the cache", "naive": "OpenVINO's own API"}
    rows = [
        [
            precision,
            *(f"{results[f'{kind}_{precision}'][part]:.0f}" for kind in kinds for part in ("anonymous", "resident")),
            *(f"{results[f'{kind}_{precision}']['load_seconds']:.1f}" for kind in ("first", "engine")),
        ]
        for precision in ("f32", "bf16")
    ]
    header = ["", *(f"{kind}: {part}, MiB" for kind in kinds.values() for part in ("anonymous", "resident"))]
    header += ["load, first time, s", "load, from the cache, s"]
    stream = results["stream"]
    start = stream["resident"][1000 // stream["every"]]
    growth = (
        f"A stream of {stream['images']:,} generated images: {start:.0f} MiB resident after the first 1,000, "
        f"at most {stream['growth_after_1000']:.0f} MiB more after that."
    )
    return f"{place(results)}\n\n{table(header, rows)}\n\n{growth}"


def resample() -> str:
    """Times of a resize, and what they are made of."""
    results = load("resample")
    names = {"pillow": "Pillow", "torch": "torch", "opencv_not_antialiased": "OpenCV, not antialiased"}
    paths = [path for path in ("avx512", "avx2", "plain") if path in results["resize"]["250 -> 112"]["microseconds"]]
    times, ratios, parts = [], [], []
    for sides, result in results["resize"].items():
        medians = {name: f"{value['median']:.1f}" for name, value in result["microseconds"].items()}
        times.append([sides, *(medians[name] for name in (*names, *paths))])
        of_torch = [f"{result['ratios'][f'{path}_to_torch']:.2f}" for path in paths]
        fused = [f"{result['ratios'][f'{path}_normalized_to_plain_resize']:.2f}" for path in paths]
        ratios.append([sides, *of_torch, *fused])
    for path, stages in results["stages"].items():
        parts += [[path, sides, *(f"{stage[name]:.1f}" for name in STAGES)] for sides, stage in stages.items()]
    return "\n\n".join(
        [
            f"{place(results)}",
            "Microseconds of one call, one thread:",
            table(["sides", *names.values(), *paths], times),
            "Ratios to torch's uint8 channels-last `interpolate(antialias=True)`, and of the fused form, which "
            "resizes, normalises and spreads into planes, to the plain resize:",
            table(["sides", *(f"{p} / torch" for p in paths), *(f"fused / plain, {p}" for p in paths)], ratios),
            "Where the time goes, in microseconds, measured inside C++. `normalizing vertical` is the vertical pass of "
            "the fused form:",
            table(["code path", "sides", *(name.replace("_", " ") for name in STAGES)], parts),
        ]
    )


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


STAGES = ("taps", "horizontal", "vertical", "normalizing_vertical", "resize", "resize_normalize")
PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "performance.md": {
        "accuracy": accuracy,
        "mixed_batch": mixed_batch,
        "memory_use": memory_use,
        "resample": resample,
    },
    "training.md": {"recipes": recipes},
    "gpu.md": {"gpu_bytes": gpu_bytes},
    "results.md": {
        "trained_accuracy": tables_training.accuracy,
        "trained_gains": tables_training.gains,
        "trained_cost": tables_training.cost,
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
