"""Which GPU and which TensorRT are taken, by stand-ins for both; whose errors TensorRT tells of."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from btnet_ext import BackendUnavailable, cuda
from btnet_ext.trt_library import make_logger
from stand_in_tensorrt import Calls, make_stand_in


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What a test's tensorrt was called for; tensorrt_rtx is not there."""
    calls = Calls()
    monkeypatch.setitem(sys.modules, "tensorrt", make_stand_in("tensorrt", "11.4.0.1", calls))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    return calls


@pytest.fixture
def used() -> list[int]:
    """The devices of which a context was made."""
    return []


def set_driver(monkeypatch: pytest.MonkeyPatch, devices: int, used: list[int]) -> list[int]:
    """Have the module _cuda find so many H100s; returns which was the current one, first of all none, -1."""

    def describe_device(device: int) -> tuple[str, tuple[int, int]]:
        if device >= devices:
            raise BackendUnavailable("there is no such GPU")
        return "H100", (9, 0)

    @contextmanager
    def current_device(device: int) -> Iterator[None]:
        current.append(device)
        yield
        current.append(before)

    before = -1
    current = [before]
    module = SimpleNamespace(check_device=used.append, describe_device=describe_device, CurrentDevice=current_device)
    monkeypatch.setattr(cuda, "native", lambda: module)
    return current


@pytest.mark.usefixtures("calls")
def test_builds_for_the_gpu_of_this_machine(monkeypatch: pytest.MonkeyPatch, used: list[int]) -> None:
    current = set_driver(monkeypatch, 2, used)
    for target, device in (("auto", 0), ("cuda", 0), ("cuda:1", 1)):
        with cuda.builder_for(target) as (library, built_for):
            assert (library.__name__, built_for) == ("tensorrt", "sm90 H100")
            assert current[-1] == device
        assert current[-1] == -1
    with (
        pytest.raises(BackendUnavailable, match="tensorrt builds engines only on the GPU that will run them"),
        cuda.builder_for("ampere+"),
    ):
        pass


def test_builds_for_other_machines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, used: list[int]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", make_stand_in("tensorrt_rtx", "1.7.1.1", Calls()))
    set_driver(monkeypatch, 0, used)
    with cuda.builder_for("sm75") as (_, built_for):
        assert built_for == "sm75"
    with caplog.at_level(logging.INFO, logger="btnet_ext"), cuda.builder_for("auto") as (library, built_for):
        pass
    assert (library.__name__, built_for) == ("tensorrt_rtx", "ampere+")
    assert caplog.messages == ["building for ampere+, since there is no such GPU"]
    with pytest.raises(BackendUnavailable, match="there is no such GPU"), cuda.builder_for("cuda"):
        pass


@pytest.mark.usefixtures("calls")
def test_no_context_is_made_where_there_is_no_tensorrt(monkeypatch: pytest.MonkeyPatch, used: list[int]) -> None:
    """It would stay in a process that goes on without the GPU, and its children could not use CUDA."""
    set_driver(monkeypatch, 1, used)
    cuda.find_gpu(0)
    assert used == [0]
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendUnavailable, match="tensorrt"):
        cuda.find_gpu(0)
    assert used == [0]


def test_errors_are_those_of_a_thread(calls: Calls) -> None:
    """Two engines may fail at once: neither must be told of the other's error, or clear its own."""
    logger = make_logger(make_stand_in("tensorrt", "11.4.0.1", calls))
    error = logger.Severity.ERROR

    def fail() -> None:
        logger.log(error, "of another\nthread")
        said.append(list(logger.errors))
        logger.errors.clear()

    said: list[list[str]] = []
    logger.log(error, "out of memory")
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert said == [["of another thread"]]
    assert logger.errors == ["out of memory"]
