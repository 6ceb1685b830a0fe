"""What the engine is compared with in benchmarks/peers.py, and what happens where a candidate is not there."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

# At the end: a benchmark must not take the place of another module of its name.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import peers

BASE, ENGINE, ALLOWED = (
    peers.Peer("opencv", "onnxruntime", "f32"),
    peers.Peer("", "engine", "f32"),
    peers.Peer("", "allowed", "f32"),
)


def test_peers_have_references_among_them() -> None:
    found = peers.peers(["f32", "bf16"])
    assert len(set(found)) == len(found) == 11
    assert {peer.reference for peer in found if peer.runner != "allowed"} <= set(found)


def test_peer_results_by_hand() -> None:
    results = peers.results_of({BASE: [8.0] * 3, ENGINE: [4.0] * 3, ALLOWED: [2.0] * 3}, BASE, 16)
    of_engine = results["peers"]["engine, f32"]
    assert {name: value["median"] for name, value in of_engine.items()} == {"images_per_second": 4, "times_faster": 2}
    allowed = results["allowed"]["f32"]
    assert {name: value["median"] for name, value in allowed.items()} == {"times_faster": 4, "reached": 0.5}


def test_nothing_is_allowed_to_an_engine_that_is_not_there() -> None:
    results = peers.results_of({BASE: [8.0] * 3, ALLOWED: [2.0] * 3}, BASE, 16)
    assert results["allowed"] == {}
    assert results["peers"].keys() == {"opencv + onnxruntime, f32"}


class FakeWorker:
    """Answers with its peer's row of embeddings; the engine's process has so many answers, and then ends."""

    way = "as it is"
    answers = 3
    of_allowed = (0.0, 1.0)

    def __init__(self, peer: peers.Peer, bundle: Path, crops: int, log: Path) -> None:
        if peer.resize == "pillow":
            raise peers.Absent("no Pillow here")
        self.peer, self.asked = peer, 0

    def ask(self, **request: str) -> dict[str, Any]:
        self.asked += 1
        if self.peer == ENGINE and self.asked > self.answers:
            raise peers.Absent("killed")
        if "run" in request:
            return {"seconds": 2.0}
        np.save(request["to"], np.array([self.of_allowed if self.peer == ALLOWED else (1.0, 0.0)]))
        return {"to": request["to"]}


@pytest.fixture
def field(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> peers.Field:
    monkeypatch.setattr(peers, "PAUSE", 0)
    monkeypatch.setattr(peers, "Worker", FakeWorker)
    bundle: Any = SimpleNamespace(path=tmp_path)
    return peers.Field(bundle, [BASE, peers.Peer("pillow", "torch", "f32"), ENGINE, ALLOWED], 4, tmp_path)


def test_a_candidate_that_dies_is_left_out(field: peers.Field) -> None:
    seconds = peers.run(field, "all small", 5)
    assert seconds[BASE] == seconds[ALLOWED] == [2.0] * 5
    assert field.workers.keys() == {BASE, ALLOWED}
    assert field.absent == {"pillow + torch, f32": "no Pillow here", "engine, f32": "killed"}


def test_an_engine_that_computes_something_else_ends_the_run(
    field: peers.Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        SystemExit, match=r"^engine, f32 computes something else than allowed, f32: .* is 0\.000000, at"
    ):
        peers.cosines(field, "all small", tmp_path)
    monkeypatch.setattr(FakeWorker, "of_allowed", (1.0, 0.0))
    assert peers.cosines(field, "all small", tmp_path) == {ENGINE: 1.0}


def test_without_onnx_runtime_there_is_nothing_to_compare_with(field: peers.Field) -> None:
    assert peers.base_of(field) == BASE
    del field.workers[BASE]
    field.absent |= {"opencv + onnxruntime, f32": "none", "pillow + onnxruntime, f32": "neither"}
    with pytest.raises(SystemExit, match=r"^nothing to compare with: opencv [^;]*: none; pillow [^;]*: neither$"):
        peers.base_of(field)


def test_a_process_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(peers.Absent, match=r"no\.btnet"):
        peers.Worker(ENGINE, tmp_path / "no.btnet", 4, tmp_path / "log")


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("raise SystemExit('first\\nout of memory')", "out of memory"),
        ("import os, sys; print('a warning', file=sys.stderr, flush=True); os.abort()", "its process ended with -6"),
        ("raise SystemExit(3)", "its process ended with 3"),
    ],
)
def test_a_process_that_ended_says_why(end: str, why: str, tmp_path: Path) -> None:
    worker = peers.Worker.__new__(peers.Worker)
    worker._log = tmp_path / "log"
    command = [sys.executable, "-c", end]
    with worker._log.open("w") as errors:
        worker._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    worker._process.wait()
    with pytest.raises(peers.Absent, match=f"^{why}$"):
        worker.ask(run="all small")
