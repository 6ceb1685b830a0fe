"""What every benchmark shares: the machine it ran on, interleaved timing, noise, the JSON that the docs are made from.

A figure is a `summary`, a median with its spread and its range, wherever something was measured more than once. That is
what the noise of a run is judged by, and what two runs are compared by (comparing.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from importlib import metadata
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from btnet_ext._native import core as native
from btnet_ext.errors import BtnetError

RESULTS = Path(__file__).with_name("results")
NOISY = 0.05
"""The spread from which on a figure is called too noisy."""
STRETCHES = 7
"""Of a run with many values, by whose medians its range is judged."""
INSTRUCTIONS = {
    "avx2": {"avx2"},
    "avx512": {"avx512f"},
    "vnni": {"avx512_vnni", "avx_vnni"},
    "bf16": {"avx512_bf16", "amx_bf16"},
    "amx": {"amx_tile"},
}
"""Vector instructions that figures depend on: by their name in results, the flags of Linux of which one is enough."""
SUMMARY = {"median", "spread", "lowest", "highest"}

_Name = TypeVar("_Name", bound=Hashable)
_Result = TypeVar("_Result")


def machine() -> dict[str, Any]:
    """CPU, its vector instructions, cores, and the versions of everything that a figure may depend on."""
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    cpu = {name.strip(): value.strip() for name, _, value in lines}
    packages = ("btnet-ext", "openvino", "numpy", "pillow", "torch", "onnxruntime", "opencv-python-headless", "nncf")
    versions: dict[str, str | None] = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": cpu.get("model name", platform.machine()),
        "instructions": instructions(cpu.get("flags", "")),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def instructions(flags: str) -> list[str]:
    """Names of the vector instructions that matter here, from the flags that /proc/cpuinfo has, between spaces."""
    found = set(flags.split())
    return [name for name, any_of in INSTRUCTIONS.items() if any_of & found]


def thread_counts() -> list[int]:
    """1, 2, 4, ... and all threads that the engine takes by itself, ascending."""
    cores = native.available_cores()
    return sorted({2**k for k in range(cores.bit_length())} | {cores})


def repeat(run: Callable[[], object], times: int) -> None:
    """Call a function some times."""
    for _ in range(times):
        run()


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
    """Median, its spread, which is half the width of the middle half relative to it, and the lowest and highest value.

    values: three or more, in the order in which they were measured. The spread says how noisy the machine was. Of more
    than STRETCHES values, lowest and highest are those of the medians of so many stretches of the run: among hundreds
    of values there is always an outlier.
    """
    low, middle, high = statistics.quantiles(values, n=4)
    ends = [round(part * len(values) / STRETCHES) for part in range(STRETCHES + 1)]
    stretches = [statistics.median(values[begin:end]) for begin, end in pairwise(ends) if begin < end]
    return {"median": middle, "spread": (high - low) / 2 / middle, "lowest": min(stretches), "highest": max(stretches)}


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


def peak(run: Callable[[], object]) -> float:
    """Megabytes (2^20) of resident memory that this process has at most during a call."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    run()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def in_child(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call a function of a module in a fresh process, with none of this one's memory and threads.

    Where it fails for a reason that is not a mistake in it, this process ends with that reason, in one sentence.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except (BtnetError, OSError, RuntimeError) as error:  # RuntimeError: OpenVINO's, and a process that was killed
            reason = str(error).strip().splitlines() or [type(error).__name__]
            sys.exit(f"{function.__name__}, in a process of its own, failed: {reason[-1]}")


def measurements(results: Mapping[str, Any], within: str = "") -> dict[str, Mapping[str, float]]:
    """All summaries of a tree of results, by their path, such as "f32 / 112 / seconds"."""
    found: dict[str, Mapping[str, float]] = {}
    for key, value in results.items():
        if isinstance(value, Mapping) and value.keys() == SUMMARY:
            found[f"{within}{key}"] = value
        elif isinstance(value, Mapping):
            found |= measurements(value, f"{within}{key} / ")
    return found


def noise(results: Mapping[str, Any]) -> dict[str, Any]:
    """How many figures the results have, and which of them are too noisy, the worst first.

    What is the same in all rounds does not count: it is the ratio of a way to itself.
    """
    found = {name: of for name, of in measurements(results).items() if of["lowest"] < of["highest"]}
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


def arguments(doc: str | None, *, comparable: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has; publish.py does what they say.

    comparable: whether there are summaries in the results, by which two runs can be compared.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little work, to try the script; writes to results/quick")
    parser.set_defaults(compare=None)
    if comparable:
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
    machine = read.get("machine") if isinstance(read, dict) else None
    if not isinstance(machine, dict) or not {"date", "versions"} <= machine.keys():
        raise argparse.ArgumentTypeError(
            f"{path} must be the JSON of an earlier run, and does not name a machine with its date and versions"
        )
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
    vectors = f" with {', '.join(machine['instructions'])}" if machine.get("instructions") else ""
    cpu = f"{machine['cpu']}{vectors}, {machine['cores']} cores"
    return f"{cpu}, Python {machine['python']}, {versions}; {machine['date']}"
