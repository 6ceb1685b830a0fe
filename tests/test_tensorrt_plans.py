"""The cache of TensorRT's plans: what is stored comes back, and nothing else does."""

import logging
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btnet_ext import BackendUnavailable, InvalidOption
from btnet_ext.trt_library import AMPERE_AND_LATER, TURING, Gpu, find_tensorrt, plan_target
from btnet_ext.trt_plans import FORMAT, Batches, PlanCache, PlanKey

KEY = PlanKey("d" * 64, 28, "f16", Batches(1, 32, 256), "sm86 GPU", "tensorrt", "11.4.0")
PLAN = bytes(range(256)) * 5


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "made" / "when needed")


def test_round_trip(cache: PlanCache, caplog: pytest.LogCaptureFixture) -> None:
    assert cache.find(KEY) is None
    path = cache.store(KEY, PLAN)
    assert path == cache.path(KEY)
    assert [*path.parent.iterdir()] == [path]
    assert cache.find(KEY) == PLAN
    cache.store(KEY, b"")
    assert cache.find(KEY) == b""
    assert caplog.messages == []


OTHERS: dict[str, Any] = {
    "digest": "e" * 64,
    "resolution": 14,
    "precision": "f32",
    "batches": Batches(1, 32, 128),
    "target": "sm89 GPU",
    "flavour": "tensorrt_rtx",
}


@pytest.mark.parametrize("field", OTHERS)
def test_every_field_makes_another_plan(cache: PlanCache, caplog: pytest.LogCaptureFixture, field: str) -> None:
    """It is kept beside the first. A file that was put in the other's place is seen for what it is."""
    assert {*OTHERS, "version"} == {field.name for field in fields(PlanKey)}
    other = replace(KEY, **{field: OTHERS[field]})
    cache.store(KEY, PLAN)
    assert cache.find(other) is None
    assert caplog.messages == []
    cache.path(KEY).rename(cache.path(other))
    assert cache.find(other) is None
    [message] = caplog.messages
    assert f"its {field} is " in message


def test_plan_of_another_version_is_replaced(cache: PlanCache, caplog: pytest.LogCaptureFixture) -> None:
    new = replace(KEY, version="11.5.0")
    cache.store(KEY, PLAN)
    assert cache.find(new) is None
    [message] = caplog.messages
    assert str(cache.path(KEY)) in message
    assert "its version is '11.4.0', not '11.5.0'" in message
    assert cache.store(new, PLAN) == cache.path(KEY)


@settings(derandomize=True, deadline=None)
@given(data=st.data())
def test_damage_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any one byte that is another, and a file cut anywhere."""
    cache = PlanCache(tmp_path_factory.mktemp("cache"))
    path = cache.store(KEY, PLAN)
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(content[:at])
    else:
        path.write_bytes(content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :])
    assert cache.find(KEY) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no plan of this version of btnet"),
        (b"btnet plan 0\n{}\nplan", "no plan of this version of btnet"),
        (FORMAT, "the line that describes the plan is damaged"),
        (FORMAT + b"[]\nplan", "the line that describes the plan is damaged"),
        (FORMAT + b'{"key": 1, "sha256": ""}\nplan', "the line that describes the plan is damaged"),
        (FORMAT + b'{"key": {}, "sha256": ""}\nplan', "its digest is None"),
    ],
)
def test_foreign_files(cache: PlanCache, caplog: pytest.LogCaptureFixture, content: bytes, reason: str) -> None:
    cache.store(KEY, PLAN).write_bytes(content)
    assert cache.find(KEY) is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert reason in caplog.text
    cache.store(KEY, PLAN)
    assert cache.find(KEY) == PLAN


def test_what_cannot_be_read_is_built_again(cache: PlanCache, caplog: pytest.LogCaptureFixture) -> None:
    cache.path(KEY).mkdir(parents=True)
    assert cache.find(KEY) is None
    assert "Is a directory" in caplog.text


def test_failure_leaves_what_was_there(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache.store(KEY, PLAN)

    def fail(_: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="the disk is full"):
        cache.store(KEY, b"another")
    assert [*path.parent.iterdir()] == [path]
    assert cache.find(KEY) == PLAN


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("1:32:256", [1, 2, 4, 8, 16, 32, 64, 128, 256]),
        ("1:24:100", [1, 2, 4, 8, 16, 24, 32, 64, 100]),
        ("3:5:11", [3, 5, 6, 11]),
        ("2:2:2", [2]),
    ],
)
def test_batch_sizes(text: str, sizes: list[int]) -> None:
    assert Batches.parse(text).sizes() == sizes


@pytest.mark.parametrize(
    "text", ["", "1", "1:2", "1:2:3:4", "0:1:2", "2:1:4", "1:4:2", "1:1:1", "a:b:c", "1:2:-3", "1: 2:3"]
)
def test_wrong_batches(text: str) -> None:
    with pytest.raises(InvalidOption, match="batch must be MIN:OPT:MAX"):
        Batches.parse(text)


@pytest.mark.parametrize(
    ("flavour", "capability", "target"),
    [
        ("tensorrt", (9, 0), "sm90 X"),
        ("tensorrt", (7, 5), "sm75 X"),
        ("tensorrt_rtx", (7, 5), TURING),
        ("tensorrt_rtx", (8, 6), AMPERE_AND_LATER),
        ("tensorrt_rtx", (12, 1), AMPERE_AND_LATER),
    ],
)
def test_targets(flavour: str, capability: tuple[int, int], target: str) -> None:
    assert plan_target(flavour, Gpu("X", capability)) == target


def test_targets_without_a_gpu() -> None:
    assert plan_target("tensorrt_rtx", None) == AMPERE_AND_LATER
    with pytest.raises(BackendUnavailable, match="only on the GPU"):
        plan_target("tensorrt", None)


@pytest.mark.parametrize("capability", [(7, 0), (8, 7), (9, 0), (10, 0), (11, 0)])
def test_gpus_that_only_tensorrt_serves(capability: tuple[int, int]) -> None:
    """Data-centre GPUs and those of robots; NVIDIA's support matrix of TensorRT-RTX has none of them."""
    with pytest.raises(BackendUnavailable, match="does not serve the X"):
        plan_target("tensorrt_rtx", Gpu("X", capability))


def test_no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendUnavailable) as caught:
        find_tensorrt(Gpu("X", (8, 6)))
    assert "tensorrt cannot be imported" in str(caught.value)
    assert "tensorrt_rtx cannot be imported" in str(caught.value)
