"""The engine against what a user would run instead: every crop resized to 112 and given to a framework.

    python benchmarks/peers.py [--arch res50] [--width 1.0] [--bundle BUNDLE] [--precision f32]

The same crops and the same network for all: Pillow or OpenCV and ONNX Runtime, which is how insightface does it; Pillow
or OpenCV and OpenVINO; Pillow and PyTorch, eager and torch.compile; and the engine in every precision. Each lives in a
process of its own (peers_worker.py), in the fastest of a few batch sizes, and all take turns. Ratios are taken within a
round, to ONNX Runtime. `allowed` is what they could be if everything around the networks cost nothing: the time of the
mix at the best rate that OpenVINO's own API reaches for each branch in the same round.

Candidates of the same networks and the same resize must have the same embeddings: the run fails where the lowest cosine
in f32 is below 0.9999. A candidate that cannot run, or whose process dies, is left out and named, with why. Writes
results/peers.json, a table and a figure.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bundles
import common
import mixes
from btnet_ext import Bundle, Engine
from comparing import refuse_others
from publish import publish

CROPS, QUICK_CROPS = 128, 32
ROUNDS, QUICK_ROUNDS = 5, 3
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
        command += ["--bundle", str(bundle), "--precision", peer.precision]
        command += ["--crops", str(crops), "--mixes", *mixes.MIXES]
        if peer.resize:
            command += ["--resize", peer.resize]
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._log = log
        self.way = self._answer()["way"]

    def ask(self, **request: str) -> dict[str, Any]:
        """Send a request and return the answer. Raises Absent where the process has ended, or ends now."""
        with suppress(BrokenPipeError):  # there is no answer then
            print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def stop(self) -> None:
        """End it."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            self._process.communicate()
            written, code = self._log.read_text().strip().splitlines(), self._process.returncode
            # A process that was killed, for want of memory for example, has not written why.
            raise Absent(written[-1] if written and code > 0 else f"its process ended with {code}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Field:
    """The candidates that run, and why others do not."""

    def __init__(self, bundle: Bundle, wanted: list[Peer], crops: int, folder: Path) -> None:
        """Start all, one after the other, since each tries what is fastest."""
        self.workers: dict[Peer, Worker] = {}
        self.absent: dict[str, str] = {}
        for number, peer in enumerate(wanted):
            try:
                self.workers[peer] = Worker(peer, bundle.path, crops, folder / f"{number}.log")
            except Absent as error:
                self.absent[str(peer)] = str(error)
            print(f"{peer}: {self.workers[peer].way if peer in self.workers else self.absent[str(peer)]}")

    def ask(self, peer: Peer, **request: str) -> dict[str, Any] | None:
        """Return a candidate's answer; None, and no such candidate any more, where its process ended."""
        try:
            return self.workers[peer].ask(**request)
        except Absent as error:
            del self.workers[peer]
            self.absent[str(peer)] = str(error)
            return None

    def stop(self) -> None:
        """End all."""
        for worker in self.workers.values():
            worker.stop()


def run(field: Field, mix: str, rounds: int) -> dict[Peer, list[float]]:
    """Seconds of each candidate in each round."""
    seconds: dict[Peer, list[float]] = {peer: [] for peer in field.workers}
    for number in range(-1, rounds):  # the first is not counted
        for peer in list(field.workers):
            time.sleep(PAUSE)
            answer = field.ask(peer, run=mix)
            if answer and number >= 0:
                seconds[peer].append(answer["seconds"])
    return seconds


def cosines(field: Field, mix: str, folder: Path) -> dict[Peer, float]:
    """Lowest cosine of each candidate's embeddings to those of its reference; ends the run if it is too low in f32."""
    rows = {}
    compared = [peer for peer in field.workers if peer.runner != "allowed" or peer.precision == "f32"]
    for number, peer in enumerate(compared):
        answer = field.ask(peer, embed=mix, to=str(folder / f"{number}.npy"))
        if answer:
            read = np.load(answer["to"]).astype(np.float64)
            rows[peer] = read / np.linalg.norm(read, axis=1, keepdims=True)
    found = {}
    for peer in rows:
        if peer.runner == "allowed" or peer.reference == peer or peer.reference not in rows:
            continue
        found[peer] = float((rows[peer] * rows[peer.reference]).sum(axis=1).min())
        if peer.precision == "f32" and found[peer] < LOWEST_COSINE:
            sys.exit(
                f"{peer} computes something else than {peer.reference}: the lowest cosine on {mix!r} is "
                f"{found[peer]:.6f}, at least {LOWEST_COSINE} was expected"
            )
    return found


def base_of(field: Field) -> Peer:
    """Return what all are compared with; ends the run if it is not there."""
    bases = [Peer(resize, "onnxruntime", "f32") for resize in ("opencv", "pillow")]
    for peer in bases:
        if peer in field.workers:
            return peer
    sys.exit(f"nothing to compare with: {'; '.join(f'{peer}: {field.absent[str(peer)]}' for peer in bases)}")


def results_of(seconds: dict[Peer, list[float]], base: Peer, crops: int) -> dict[str, Any]:
    """Rates of the candidates, ratios to the base; what these may be at most, and how much of it the engine reaches.

    What an engine may reach that is not there is left out.
    """
    found: dict[str, Any] = {"peers": {}, "allowed": {}}
    for peer, taken in seconds.items():
        faster = common.ratios(seconds[base], taken)
        if peer.runner == "allowed":
            engine = seconds.get(Peer("", "engine", peer.precision))
            if engine:
                found["allowed"][peer.precision] = {"times_faster": faster, "reached": common.ratios(taken, engine)}
        else:
            rate = common.summary([crops / value for value in taken])
            found["peers"][str(peer)] = {"images_per_second": rate, "times_faster": faster}
    return found


def measure(bundle: Bundle, precisions: list[str], crops: int, rounds: int) -> dict[str, Any]:
    """Start the candidates, compare embeddings and run all mixes."""
    with tempfile.TemporaryDirectory() as name:
        field = Field(bundle, peers(precisions), crops, Path(name))
        base_of(field)
        close = {mix: cosines(field, mix, Path(name)) for mix in mixes.MIXES}
        seconds = {mix: run(field, mix, rounds) for mix in mixes.MIXES}
        field.stop()
    base = base_of(field)
    selecting = Engine(bundle.path)
    found = {}
    for mix in mixes.MIXES:
        found[mix] = results_of({peer: seconds[mix][peer] for peer in field.workers}, base, crops)
        found[mix]["cosine"] = {
            str(peer): {"lowest": lowest, "reference": str(peer.reference)}
            for peer, lowest in close[mix].items()
            if peer in field.workers
        }
        found[mix]["branches"] = mixes.counts(selecting, mixes.crops(mix, crops))
    ways = {str(peer): worker.way for peer, worker in field.workers.items()}
    return {"base": str(base), "ways": ways, "mixes": found, "absent": field.absent}


def main() -> None:
    """Measure every precision that there is."""
    parser = common.arguments(__doc__)
    bundles.add_options(parser)
    bundles.add_precision(parser)
    options = parser.parse_args()
    crops, rounds = (QUICK_CROPS, QUICK_ROUNDS) if options.quick else (CROPS, ROUNDS)
    print(f"seed {mixes.SEED}")
    with bundles.opened(parser, options) as bundle:
        settings = bundles.description(bundle, options) | {"crops": crops, "seed": mixes.SEED}
        refuse_others(settings, options)
        # f32 is what all other candidates run, and what embeddings are compared in.
        wanted = options.precision and ["f32", *(name for name in options.precision if name != "f32")]
        precisions, absent = bundles.available(bundle, wanted)
        results = measure(bundle, precisions, crops, rounds)
        results["absent"] |= {f"engine, {precision}": why for precision, why in absent.items()}
    settings["base"] = results.pop("base")
    publish("peers", {"settings": settings, **results}, options)


if __name__ == "__main__":
    main()
