"""The engine against what a user would run instead: every crop resized to 112 and given to a framework.

    python benchmarks/peers.py [--arch res50] [--width 1.0] [--bundle BUNDLE] [--precision f32]

The same crops and the same network for all: Pillow or OpenCV and ONNX Runtime, which is how insightface does it; Pillow
or OpenCV and OpenVINO; Pillow and PyTorch, eager and torch.compile; and the engine in every precision. Each lives in a
process of its own (peers_worker.py), in the fastest of a few batch sizes, and all take turns. Ratios are taken within a
round, to ONNX Runtime. `allowed` is what they could be if everything around the networks cost nothing: the time of the
mix at the best rate that OpenVINO's own API reaches for each branch in the same round.

Candidates of the same networks and the same resize must have the same embeddings: the run fails where the lowest cosine
in f32 is below 0.9999. Writes results/peers.json, a table and a figure. A candidate that cannot run is named, with why.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bundles
import common
import mixes
from btnet_ext import Bundle
from publish import publish

MIXES = ("surveillance", "all small")
CROPS, QUICK_CROPS = 128, 32
ROUNDS, QUICK_ROUNDS = 7, 3
PAUSE = 0.1  # seconds; the threads of a framework go on spinning for a while, and would disturb the next candidate
LOWEST_COSINE = 0.9999


@dataclass(frozen=True)
class Peer:
    """A candidate: what resizes, what runs the network, in which precision."""

    resize: str  # none: the runner's own way
    runner: str
    precision: str

    def __str__(self) -> str:
        """Return its name in results."""
        return " + ".join(filter(None, (self.resize, self.runner))) + f", {self.precision}"

    @property
    def reference(self) -> Peer:
        """Whose embeddings it must have, up to its precision."""
        if self.runner == "engine":
            return Peer("", "allowed", "f32")
        return Peer(self.resize, "onnxruntime", "f32")


def peers(precisions: list[str]) -> list[Peer]:
    """All candidates, and the limits of the engine."""
    found = [Peer(resize, runner, "f32") for runner in ("onnxruntime", "openvino") for resize in ("opencv", "pillow")]
    found += [Peer("pillow", "openvino", precision) for precision in precisions if precision != "f32"]
    found += [Peer("pillow", runner, "f32") for runner in ("torch", "torch.compile")]
    found += [Peer("", runner, precision) for precision in precisions for runner in ("engine", "allowed")]
    return found


class Absent(Exception):
    """A candidate that cannot run here."""


class Worker:
    """The process of a candidate."""

    def __init__(self, peer: Peer, bundle: Path, crops: int, log: Path) -> None:
        """Start it, and wait until it is ready. Raises Absent, with the last line that it wrote to the log."""
        command = [sys.executable, str(Path(__file__).with_name("peers_worker.py")), peer.runner]
        command += ["--bundle", str(bundle), "--precision", peer.precision, "--crops", str(crops), "--mixes", *MIXES]
        if peer.resize:
            command += ["--resize", peer.resize]
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._log = log
        self.way = self._answer()["way"]

    def ask(self, **request: str) -> dict[str, Any]:
        """Send a request and return the answer."""
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def stop(self) -> None:
        """End it."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            code = self._process.wait()
            written = self._log.read_text().strip().splitlines()
            raise Absent(written[-1] if written else f"its process ended with {code}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def start(bundle: Bundle, wanted: list[Peer], crops: int, folder: Path) -> tuple[dict[Peer, Worker], dict[str, str]]:
    """Start all, one after the other, since each tries what is fastest; and say why some are absent."""
    workers, absent = {}, {}
    for number, peer in enumerate(wanted):
        try:
            workers[peer] = Worker(peer, bundle.path, crops, folder / f"{number}.log")
        except Absent as error:
            absent[str(peer)] = str(error)
        print(f"{peer}: {workers[peer].way if peer in workers else absent[str(peer)]}")
    return workers, absent


def run(workers: dict[Peer, Worker], mix: str, rounds: int) -> dict[Peer, list[float]]:
    """Seconds of each candidate in each round."""
    seconds: dict[Peer, list[float]] = {peer: [] for peer in workers}
    for number in range(-1, rounds):  # the first is not counted
        for peer, worker in workers.items():
            time.sleep(PAUSE)
            taken = worker.ask(run=mix)["seconds"]
            if number >= 0:
                seconds[peer].append(taken)
    return seconds


def cosines(workers: dict[Peer, Worker], mix: str, folder: Path) -> dict[str, Any]:
    """Lowest cosine of each candidate's embeddings to those of its reference. RuntimeError if it is too low in f32."""
    rows = {}
    compared = [peer for peer in workers if peer.runner != "allowed" or peer.precision == "f32"]
    for number, peer in enumerate(compared):
        worker = workers[peer]
        read = np.load(worker.ask(embed=mix, to=str(folder / f"{number}.npy"))["to"]).astype(np.float64)
        rows[peer] = read / np.linalg.norm(read, axis=1, keepdims=True)
    found = {}
    for peer in rows:
        if peer.runner == "allowed" or peer.reference == peer or peer.reference not in rows:
            continue
        lowest = float((rows[peer] * rows[peer.reference]).sum(axis=1).min())
        if peer.precision == "f32" and lowest < LOWEST_COSINE:
            raise RuntimeError(
                f"{peer} computes something else than {peer.reference}: the lowest cosine on {mix!r} is {lowest:.6f}, "
                f"at least {LOWEST_COSINE} was expected"
            )
        found[str(peer)] = {"lowest": lowest, "reference": str(peer.reference)}
    return found


def results_of(seconds: dict[Peer, list[float]], base: Peer, crops: int) -> dict[str, Any]:
    """Rates of the candidates, ratios to the base; what these may be at most, and how much of it the engine reaches."""
    found: dict[str, Any] = {"peers": {}, "allowed": {}}
    for peer, taken in seconds.items():
        faster = common.ratios(seconds[base], taken)
        if peer.runner == "allowed":
            engine = seconds[Peer("", "engine", peer.precision)]
            found["allowed"][peer.precision] = {"times_faster": faster, "reached": common.ratios(taken, engine)}
        else:
            rate = common.summary([crops / value for value in taken])
            found["peers"][str(peer)] = {"images_per_second": rate, "times_faster": faster}
    return found


def measure(bundle: Bundle, precisions: list[str], crops: int, rounds: int) -> dict[str, Any]:
    """Start the candidates, run all mixes and compare embeddings."""
    with tempfile.TemporaryDirectory() as name:
        workers, absent = start(bundle, peers(precisions), crops, Path(name))
        bases = [Peer(resize, "onnxruntime", "f32") for resize in ("opencv", "pillow")]
        base = next((peer for peer in bases if peer in workers), None)
        if base is None:
            raise RuntimeError(f"nothing to compare with: {absent}")
        found = {}
        for mix in MIXES:
            found[mix] = results_of(run(workers, mix, rounds), base, crops)
            found[mix]["cosine"] = cosines(workers, mix, Path(name))
            selected = mixes.branches(mixes.crops(mix, crops), bundle.resolutions)
            found[mix]["branches"] = {str(resolution): count for resolution, count in selected.items()}
        for worker in workers.values():
            worker.stop()
    ways = {str(peer): worker.way for peer, worker in workers.items()}
    return {"base": str(base), "ways": ways, "mixes": found, "absent": absent}


def main() -> None:
    """Measure every precision that there is."""
    parser = common.arguments(__doc__)
    bundles.add_options(parser)
    bundles.add_precision(parser)
    options = parser.parse_args()
    crops, rounds = (QUICK_CROPS, QUICK_ROUNDS) if options.quick else (CROPS, ROUNDS)
    print(f"seed {mixes.SEED}")
    with bundles.opened(parser, options) as bundle:
        # f32 is what all other candidates run, and what embeddings are compared in.
        wanted = options.precision and ["f32", *(name for name in options.precision if name != "f32")]
        precisions, absent = bundles.available(bundle, wanted)
        results = measure(bundle, precisions, crops, rounds)
        results["absent"] |= {f"engine, {precision}": why for precision, why in absent.items()}
        settings = bundles.description(bundle) | {"crops": crops, "seed": mixes.SEED, "quick": options.quick}
    settings["base"] = results.pop("base")
    publish("peers", {"settings": settings, **results}, options)


if __name__ == "__main__":
    main()
