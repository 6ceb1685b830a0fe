"""What every benchmark shares: the machine it ran on, interleaved timing, noise, the JSON that the docs are made from.

A figure is a `summary`, a median with its spread, wherever something was measured more than once. That is what the
noise of a run is judged by, and what two runs are compared by.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

RESULTS = Path(__file__).with_name("results")
NOISY = 0.05
"""The spread from which on a figure is called too noisy."""

_Name = TypeVar("_Name", bound=Hashable)
_Result = TypeVar("_Result")


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


def interleave(candidates: Mapping[_Name, Callable[[], object]], *, rounds: int) -> dict[_Name, list[float]]:
    """Seconds of each candidate in each round; all take turns, so that a slow spell hits all of them."""
    for run in candidates.values():
        run()
    seconds: dict[_Name, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(values: list[float]) -> dict[str, float]:
    """Median, and its spread: half the width of the middle half, relative to it (how noisy the machine was)."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "spread": (high - low) / 2 / middle}


def ratios(over: list[float], under: list[float]) -> dict[str, float]:
    """Summary of the quotients, one a round: what slows a round down hits both of its times."""
    return summary([a / b for a, b in zip(over, under, strict=True)])


def memory() -> dict[str, float]:
    """Megabytes (2^20) of this process: resident, and the anonymous part of it, which no file backs."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:] if ":" in line
    )
    return {
        name: int(fields[key].split()[0]) / 1024 for name, key in {"resident": "Rss", "anonymous": "Anonymous"}.items()
    }


def in_child(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call a function of a module in a fresh process, with none of this one's memory, threads and imports."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measurements(results: Mapping[str, Any], within: str = "") -> dict[str, Mapping[str, float]]:
    """All summaries of a tree of results, by their path, such as "f32 / 112 / seconds"."""
    found: dict[str, Mapping[str, float]] = {}
    for key, value in results.items():
        if isinstance(value, Mapping) and value.keys() == {"median", "spread"}:
            found[f"{within}{key}"] = value
        elif isinstance(value, Mapping):
            found |= measurements(value, f"{within}{key} / ")
    return found


def noise(results: Mapping[str, Any]) -> dict[str, Any]:
    """How many figures the results have, and which of them are too noisy, the worst first."""
    found = measurements(results)
    noisy = sorted((name for name in found if found[name]["spread"] > NOISY), key=lambda name: -found[name]["spread"])
    return {"limit": NOISY, "figures": len(found), "too_noisy": noisy}


def noise_note(results: Mapping[str, Any]) -> str:
    """Say on the page how noisy the run was."""
    noise = results["noise"]
    noisy, figures, limit = noise["too_noisy"], noise["figures"], f"{noise['limit']:.0%}"
    if not noisy:
        return f"None of the {figures} figures of this run is too noisy: all spreads are below {limit}."
    worst = measurements(results)[noisy[0]]["spread"]
    return (
        f"**{len(noisy)} of the {figures} figures of this run are too noisy (a spread above {limit}); "
        f"the worst is {noisy[0]}, with {worst:.0%}.**"
    )


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Medians, old and new, of the figures that changed beyond noise: their middle halves lie apart."""
    before, after = measurements(old), measurements(new)
    changed = {}
    for name in before.keys() & after.keys():
        a, b = before[name], after[name]
        if abs(a["median"] - b["median"]) > a["median"] * a["spread"] + b["median"] * b["spread"]:
            changed[name] = (a["median"], b["median"])
    return {name: changed[name] for name in after if name in changed}


def comparison(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Markdown of what changed from old to new beyond noise. ValueError where the two are not of the same kind."""
    settings, others = old.get("settings", {}), new.get("settings", {})
    for key in settings.keys() & others.keys():
        if settings[key] != others[key]:
            raise ValueError(
                f"the old results were measured with {key} {settings[key]!r}, these with {others[key]!r}: "
                "they cannot be compared"
            )
    before, after = measurements(old), measurements(new)
    both = before.keys() & after.keys()
    if not both:
        raise ValueError("the old results have no figure in common with these: they cannot be compared")
    changed = changes(old, new)
    lines = [f"Changed beyond noise since {old['machine']['date']}: {len(changed)} of {len(both)} figures."]
    then, now = ({**of["machine"], **of["machine"]["versions"]} for of in (old, new))
    lines += [
        f"{part} was {then.get(part)} then, and is {value} now."
        for part, value in now.items()
        if part not in ("date", "versions") and then.get(part) != value
    ]
    if alone := len(before.keys() ^ after.keys()):
        lines.append(f"{alone} figures are in one of the two only.")
    if changed:
        rows = [[name, f"{a:.4g}", f"{b:.4g}", f"{b / a - 1:+.1%}"] for name, (a, b) in changed.items()]
        lines.append(table(["figure", "old", "new", "change"], rows))
    return "\n\n".join(lines)


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has; publish.py does what they say."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little work, to try the script; writes to results/quick")
    parser.add_argument(
        "--compare", type=_read, metavar="OLD.json", help="say what changed beyond noise since these results"
    )
    return parser


def _read(path: str) -> dict[str, Any]:
    """Read results at once, since the new ones may take the old ones' place."""
    try:
        read: dict[str, Any] = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path} must be the JSON of an earlier run: {error}") from None
    if not isinstance(read, dict) or "machine" not in read:
        raise argparse.ArgumentTypeError(f"{path} must be the JSON of an earlier run, and does not name a machine")
    return read


def write(name: str, results: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write NAME.json into the folder and return its path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **results, "noise": noise(results)}, indent=2) + "\n")
    return path


def load(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Read NAME.json of the folder."""
    read: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return read


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Lay out a Markdown table."""
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def place(results: Mapping[str, Any]) -> str:
    """Say on what the figures were taken."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    return f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {versions}; {machine['date']}"
