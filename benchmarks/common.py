"""What every benchmark shares: the machine it ran on, interleaved timing, the JSON that the docs are made from."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


def machine() -> dict[str, Any]:
    """CPU, cores, and the versions of everything that a figure may depend on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    packages = ("btnet-ext", "openvino", "numpy", "pillow", "torch", "onnxruntime", "opencv-python-headless")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def interleave(candidates: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each candidate in each round; all take turns, so that a slow spell hits all of them."""
    for run in candidates.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(values: list[float]) -> dict[str, float]:
    """Median, and the half-width of the middle half relative to it (how noisy the machine was)."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "spread": (high - low) / 2 / middle}


def memory() -> dict[str, float]:
    """Megabytes (2^20) of this process: resident, and the anonymous part of it, which no file backs."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:] if ":" in line
    )
    return {
        name: int(fields[key].split()[0]) / 1024 for name, key in {"resident": "Rss", "anonymous": "Anonymous"}.items()
    }


def write(name: str, results: Mapping[str, Any]) -> Path:
    """Write results/NAME.json and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **results}, indent=2) + "\n")
    return path


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Lay out a Markdown table."""
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def place(results: dict[str, Any]) -> str:
    """Say on what the figures were taken."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    return f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {versions}; {machine['date']}"
