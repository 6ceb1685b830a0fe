"""One candidate of peers.py, in a process of its own.

Says that it is ready, and in which way it runs, the fastest of those that it tried. Then it reads lines of JSON and
answers each with one: {"run": MIX} with the seconds that it took, {"embed": MIX, "to": FILE} when the embeddings are in
FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import common
import mixes
import openvino_runs
from btnet_ext import Bundle, Engine
from peers_runners import RUNNERS, Crops, Rows, Run, blocks, with_openvino

BATCHES = (1, 8, 32)
SAMPLE = 64
"""Crops that each batch size is tried with."""
ROUNDS = 2
"""That it is tried in, and judged by the faster one."""


@dataclass(frozen=True)
class Candidate:
    """In which way it runs, how long crops take it, and what it makes of them."""

    way: Any
    seconds: Callable[[Crops], float]
    embed: Callable[[Crops], Rows]


def timed(call: Callable[..., object], *arguments: object) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def up_sampling(bundle: Bundle, runner: str, resize: str, precision: str, sample: Crops) -> Candidate:
    """Every crop at 112, in the batches that are the fastest for the sample."""
    side = bundle.canonical

    def embed(run: Run, batch: int, crops: Crops) -> Rows:
        return run(blocks(bundle, resize, crops, side, batch))

    ways = {batch: partial(embed, RUNNERS[runner](bundle, precision, side, batch), batch) for batch in BATCHES}
    seconds = common.interleave({batch: partial(way, sample) for batch, way in ways.items()}, rounds=ROUNDS)
    best = min(ways, key=lambda batch: min(seconds[batch]))
    return Candidate(f"batches of {best}", partial(timed, ways[best]), ways[best])


def engine(bundle: Bundle, precision: str) -> Candidate:
    """This project's engine, with all its branches."""
    made = Engine(bundle.path, precision=precision)
    return Candidate("all at once", partial(timed, made.embed), made.embed)


def allowed(bundle: Bundle, precision: str) -> Candidate:
    """No candidate, but a limit: each branch at OpenVINO's best rate for it, with tensors that are ready.

    What it embeds, with Pillow and OpenVINO, is what the engine has to compute.
    """
    selecting = Engine(bundle.path, precision=precision)
    ways = {side: openvino_runs.best_way(bundle, precision, side) for side in bundle.resolutions}

    def seconds(crops: Crops) -> float:
        counts = mixes.counts(selecting, crops)
        return sum(timed(ways[side].run) / ways[side].images * count for side, count in counts.items() if count)

    def embed(crops: Crops) -> Rows:
        rows = np.empty((len(crops), bundle.dim), np.float32)
        chosen = selecting.select(crops)
        for side in np.unique(chosen).tolist():
            places = np.flatnonzero(chosen == side)
            run = with_openvino(bundle, precision, side, 1)
            rows[places] = run(blocks(bundle, "pillow", [crops[place] for place in places.tolist()], side, 1))
        return rows

    return Candidate({str(side): way.name for side, way in ways.items()}, seconds, embed)


def main() -> None:
    """Get ready, then answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runner", choices=["engine", "allowed", *RUNNERS])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--resize", choices=["pillow", "opencv"], default="pillow")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--mixes", nargs="+", required=True)
    parser.add_argument("--crops", type=int, required=True)
    options = parser.parse_args()
    # Libraries may print: what is meant for peers.py goes through a copy of the standard output.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    bundle = Bundle.open(options.bundle)
    crops: dict[str, Crops] = {name: mixes.crops(name, options.crops) for name in options.mixes}
    if options.runner == "engine":
        candidate = engine(bundle, options.precision)
    elif options.runner == "allowed":
        candidate = allowed(bundle, options.precision)
    else:
        sample = crops[options.mixes[0]][:SAMPLE]
        candidate = up_sampling(bundle, options.runner, options.resize, options.precision, sample)
    answer: dict[str, Any] = {"way": candidate.way}
    print(json.dumps(answer), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            answer = {"seconds": candidate.seconds(crops[request["run"]])}
        else:
            np.save(request["to"], candidate.embed(crops[request["embed"]]))
            answer = {"to": request["to"]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
