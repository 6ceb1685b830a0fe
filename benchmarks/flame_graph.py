"""Where the time of a mixed batch goes: what perf sees of the engine's process, as a flame graph.

    python benchmarks/flame_graph.py [--arch res50] [--width 1.0] [--bundle BUNDLE] [--precision f32]

The process embeds a batch with 32 crops for each branch again and again; perf looks at all of its threads HERTZ times a
second. A sample counts for the library that computes, or that has called the C library or Linux. Frames of libraries
without symbols have the library's name. The kernels that OpenVINO generates have neither symbols nor callers: they
stand by themselves. Needs perf (Debian: linux-perf). Writes results/flame_graph.json, a table and a figure.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, TypeAlias

import bundles
import common
import mixes
from btnet_ext import Engine
from publish import publish

CROPS_A_BRANCH = 32
SECONDS, QUICK_SECONDS = 20, 2
HERTZ = 199
STACK_BYTES = 16384
"""Of each sample: perf finds its callers in them."""
LEAST = 0.001
"""Of all samples: rarer stacks are not in the results."""

GENERATED, SYSTEM = "generated kernels", "C library and Linux"
PARTS = {
    r"\[JIT\]|perf-\d+\.map": GENERATED,
    r"libopenvino|libtbb": "OpenVINO",
    r"_core\.|libbtnet": "btnet",
    r"python|numpy": "Python",
}
"""Whose a library is, by what its file name has; the rest is SYSTEM's."""

Stack: TypeAlias = tuple[tuple[str, str], ...]
"""Part and name of each frame, the outermost first; frames of one name that follow one another are one."""


def part_of(library: str) -> str:
    """Whose a library is, from its path as perf gives it."""
    name = library.rpartition("/")[2]
    return next((part for pattern, part in PARTS.items() if re.search(pattern, name)), SYSTEM)


def stacks(script: str) -> Counter[Stack]:
    """Count the stacks in what perf script prints: a block of lines for each sample, the innermost frame first."""
    counted: Counter[Stack] = Counter()
    for block in script.split("\n\n"):
        frames: list[tuple[str, str]] = []
        for symbol, library in re.findall(r"^\s+[0-9a-f]+ (.*) \((.*)\)$", block, re.MULTILINE):
            part = part_of(library)
            unnamed = part if part == GENERATED else library.rpartition("/")[2].partition(".so")[0]
            frame = (part, unnamed if symbol == "[unknown]" else symbol)
            if frames[-1:] != [frame]:
                frames.append(frame)
        if frames:
            counted[tuple(reversed(frames))] += 1
    return counted


def who_computes(stack: Stack) -> str:
    """The part that a sample counts for."""
    return next((part for part, _ in reversed(stack) if part != SYSTEM), SYSTEM)


def shares(counted: Counter[Stack]) -> dict[str, float]:
    """Of the samples, the part of each who computes, the largest first."""
    parts: Counter[str] = Counter()
    for stack, count in counted.items():
        parts[who_computes(stack)] += count
    return {part: count / counted.total() for part, count in parts.most_common()}


def work(path: Path, precision: str, ready: Event, stop: Event) -> None:
    """Embed until told to stop."""
    engine = Engine(path, precision=precision)
    crops = mixes.of_branches(engine.resolutions, CROPS_A_BRANCH)
    engine.embed(crops)
    ready.set()
    while not stop.is_set():
        engine.embed(crops)


def perf(*arguments: object) -> str:
    """Run perf and return what it prints; the run ends where that cannot be."""
    done = subprocess.run(["perf", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        sys.exit(f"perf {arguments[0]} failed: {reason[-1]}")
    return done.stdout


def sample(path: Path, precision: str, seconds: int) -> Counter[Stack]:
    """Count the stacks of an engine at work."""
    context = get_context("spawn")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=work, args=(path, precision, ready, stop))
    process.start()
    try:
        while not ready.wait(1):
            if not process.is_alive():
                sys.exit("the process that embeds ended before it began")
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "perf.data"
            graph = f"dwarf,{STACK_BYTES}"
            watched = ("-p", process.pid, "-F", HERTZ, "--call-graph", graph, "-o", data)
            perf("record", "-q", *watched, "--", "sleep", seconds)
            counted = stacks(perf("script", "-i", data, "-F", "comm,tid,ip,sym,dso"))
    finally:
        stop.set()
        process.join()
    if not counted:
        sys.exit("perf saw no sample of the process that embeds")
    return counted


def measure(path: Path, precision: str, seconds: int) -> dict[str, Any]:
    """Shares, and the stacks with theirs, the most frequent first."""
    counted = sample(path, precision, seconds)
    total = counted.total()
    often = [
        {"frames": stack, "share": count / total} for stack, count in counted.most_common() if count >= LEAST * total
    ]
    return {"samples": total, "shares": shares(counted), "stacks": often}


def main() -> None:
    """Measure every precision that there is."""
    parser = common.arguments(__doc__, comparable=False)
    bundles.add_options(parser)
    bundles.add_precision(parser)
    options = parser.parse_args()
    if shutil.which("perf") is None:
        sys.exit("there is no perf here: install it (Debian: linux-perf)")
    seconds = QUICK_SECONDS if options.quick else SECONDS
    with bundles.opened(parser, options) as bundle:
        settings = bundles.description(bundle, options)
        settings |= {"crops_a_branch": CROPS_A_BRANCH, "seed": mixes.SEED, "hertz": HERTZ, "seconds": seconds}
        precisions, absent = bundles.available(bundle, options.precision)
        results = {precision: measure(bundle.path, precision, seconds) for precision in precisions}
    publish("flame_graph", {"settings": settings, "precision": results, "absent": absent}, options)


if __name__ == "__main__":
    main()
