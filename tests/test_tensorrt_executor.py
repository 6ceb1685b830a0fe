"""The executor on a stand-in for TensorRT that computes with ONNX Runtime: embeddings, slots, plans, failures."""

import logging
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from btnet_ext import BackendUnavailable, BtnetError, Bundle, InvalidOption
from btnet_ext.tensorrt import TensorRTExecutor, plan_cache, plan_key
from btnet_ext.trt_build import build_plan
from btnet_ext.trt_library import Gpu, find_tensorrt, make_logger
from btnet_ext.trt_plans import Batches
from reference import cosines
from stand_in_tensorrt import MEMORY, Calls, make_stand_in, one_thread

SEED = 41
GPU = Gpu("Stand-in", (8, 6))
BATCHES = Batches(1, 2, 4)
STREAM = 77


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """What a test's tensorrt was called for; tensorrt_rtx is not there, and the cache is empty."""
    calls = Calls()
    monkeypatch.setitem(sys.modules, "tensorrt", make_stand_in("tensorrt", "11.4.0.1", calls))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setenv("BTNET_CACHE", str(tmp_path / "cache"))
    return calls


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return Bundle.open(small_bundle)


class Buffer:
    """Host memory, which the stand-in takes for the device's."""

    def __init__(self, size: int) -> None:
        self._memory = np.empty(size, np.uint8)
        self.address = self._memory.ctypes.data


def make(bundle: Bundle, **options: Any) -> TensorRTExecutor:
    defaults: dict[str, Any] = {
        "gpu": GPU,
        "allocate": Buffer,
        "precision": "f32",
        "resolutions": [7],
        "batches": BATCHES,
    }
    return TensorRTExecutor(bundle, **(defaults | options))


def run(executor: TensorRTExecutor, side: int, values: npt.NDArray[Any], slot: int = 0) -> npt.NDArray[np.float32]:
    """As the pipeline does, but in host memory, which the stand-in takes for the device's."""
    values = np.ascontiguousarray(values, np.float16 if executor.input_element() == "f16" else np.float32)
    rows = np.empty((len(values), executor.dim()), np.float32)
    executor.enqueue(side, len(values), values.ctypes.data, rows.ctypes.data, STREAM, slot)
    return rows


def draw(count: int, side: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng([SEED, count, side]).uniform(-1, 1, (count, 3, side, side)).astype(np.float32)


def names(calls: Calls) -> list[str]:
    return [name for name, *_ in calls]


@pytest.mark.parametrize("precision", ["f32", "f16"])
@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt_rtx"])
def test_embeddings(
    bundle: Bundle, calls: Calls, monkeypatch: pytest.MonkeyPatch, precision: str, flavour: str
) -> None:
    if flavour == "tensorrt_rtx":
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", make_stand_in("tensorrt_rtx", "1.7.1.1", calls))
    executor = make(bundle, precision=precision, resolutions=[7, 14])
    assert executor.dim() == 512
    assert executor.input_element() == precision
    assert executor.batch_sizes(14) == [1, 2, 4]
    for side in (7, 14):
        values = draw(4, side)
        session = onnxruntime.InferenceSession(str(bundle.path / f"branch_{side}.onnx"), one_thread())
        [expected] = session.run(["embedding"], {"input": values})
        assert cosines(run(executor, side, values), np.asarray(expected)).min() >= 0.9999
    contexts = [call for call in calls if call[0] == "create_execution_context"]
    eager = None if flavour == "tensorrt" else "EAGER"
    assert contexts == [("create_execution_context", eager, "USER_MANAGED")] * 2


def test_what_is_asked_of_tensorrt(bundle: Bundle, calls: Calls) -> None:
    executor = make(bundle)
    assert names(calls) == ["Runtime", "parse", "build_serialized_network", "deserialize_cuda_engine"]
    calls.clear()
    values, rows = draw(2, 7), np.empty((2, 512), np.float32)
    executor.enqueue(7, 2, values.ctypes.data, rows.ctypes.data, STREAM, 1)
    assert names(calls)[1:4] == ["set_input_shape", "update_device_memory_size_for_shapes", "set_device_memory"]
    del calls[1:4]
    assert calls[:-1] == [
        ("create_execution_context", None, "USER_MANAGED"),
        ("set_tensor_address", "input", values.ctypes.data),
        ("set_tensor_address", "embedding", rows.ctypes.data),
    ]
    assert calls[-1][:2] == ("execute_async_v3", STREAM)


def test_a_context_for_each_size_and_memory_for_each_slot_and_branch(bundle: Bundle, calls: Calls) -> None:
    executor = make(bundle, resolutions=[7, 14])
    for _ in range(2):
        for side in (7, 14):
            for slot in (0, 1):
                for count in (4, 1):
                    run(executor, side, draw(count, side), slot)
    contexts = [call[-1] for call in calls if call[0] == "execute_async_v3"]
    assert len(set(contexts)) == 8
    assert contexts[:8] == contexts[8:]
    given = [call[1:] for call in calls if call[0] == "set_device_memory"]
    assert [context for *_, context in given] == contexts[:8]
    assert [size for _, size, _ in given] == [4 * MEMORY] * 8
    addresses = [address for address, *_ in given]
    assert addresses[::2] == addresses[1::2], "two sizes of one slot and branch"
    assert len(set(addresses)) == 4
    calls.clear()
    run(executor, 7, draw(2, 7))
    assert [call[1:3] for call in calls if call[0] == "set_device_memory"] == [(addresses[0], 4 * MEMORY)]


def test_memory_of_contexts_grows_with_batches(bundle: Bundle, calls: Calls) -> None:
    executor = make(bundle)
    first = run(executor, 7, draw(1, 7))
    run(executor, 7, draw(4, 7))
    np.testing.assert_array_equal(run(executor, 7, draw(1, 7)), first)
    assert [call[2] for call in calls if call[0] == "set_device_memory"] == [MEMORY, 4 * MEMORY]


def test_memory_is_given_back(bundle: Bundle, calls: Calls) -> None:
    """Otherwise what a large batch of one branch has taken is missing for even small ones of another."""
    held: list[weakref.ref[Buffer]] = []

    def allocate(size: int) -> Buffer:
        if sum(1 for buffer in held if buffer() is not None) > 0:
            raise MemoryError("there is one block alone")
        buffer = Buffer(size)
        held.append(weakref.ref(buffer))
        return buffer

    executor = make(bundle, resolutions=[7, 14], allocate=allocate)
    first = run(executor, 7, draw(4, 7))
    with pytest.raises(MemoryError):
        run(executor, 14, draw(4, 14))
    executor.release_memory()
    assert run(executor, 14, draw(4, 14)).any()
    executor.release_memory()
    np.testing.assert_array_equal(run(executor, 7, draw(4, 7)), first)
    assert calls.ended.count("context") == 3, "that of the branch for 14 that got no memory, too"


def test_contexts_of_a_branch_share_compiled_kernels(
    bundle: Bundle, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", make_stand_in("tensorrt_rtx", "1.7.1.1", calls))
    executor = make(bundle, resolutions=[7, 14])
    for side in (7, 14):
        for count in (1, 2):
            run(executor, side, draw(count, side))
    caches = [call[1] for call in calls if call[0] == "set_runtime_cache"]
    assert caches == [caches[0]] * 2 + [caches[2]] * 2
    assert caches[0] != caches[2]


def test_objects_of_tensorrt_end_before_those_that_they_use(
    bundle: Bundle, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", make_stand_in("tensorrt_rtx", "1.7.1.1", calls))
    executor = make(bundle)
    for count in (1, 2):
        run(executor, 7, draw(count, 7))
    assert calls.ended == []
    del executor
    assert calls.ended == ["context", "context", "kernels", "engine", "runtime"]


def test_a_plan_is_not_built_again_for_want_of_memory(bundle: Bundle, calls: Calls) -> None:
    make(bundle)
    calls.clear()
    calls.failing["deserialize_cuda_engine"] = "OutOfMemory (Requested size was 99 bytes.)"
    with pytest.raises(BackendUnavailable, match=r"too little memory for the engine in .*Requested size was 99"):
        make(bundle)
    assert names(calls) == ["Runtime", "deserialize_cuda_engine"]


def test_no_memory_for_contexts(bundle: Bundle, calls: Calls) -> None:
    def refuse(size: int) -> Any:
        raise MemoryError(f"no {size} bytes")

    executor = make(bundle, allocate=refuse)
    for _ in range(2):
        with pytest.raises(MemoryError, match=f"no {MEMORY} bytes"):
            run(executor, 7, draw(1, 7))


def test_plans_are_kept(bundle: Bundle, calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    first = run(make(bundle), 7, draw(2, 7))
    calls.clear()
    again = make(bundle)
    assert names(calls) == ["Runtime", "deserialize_cuda_engine"]
    np.testing.assert_array_equal(run(again, 7, draw(2, 7)), first)
    calls.clear()
    make(bundle, precision="f16")
    assert "build_serialized_network" in names(calls)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_plan_that_tensorrt_does_not_load(bundle: Bundle, calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    make(bundle)
    calls.clear()
    calls.failing["deserialize_cuda_engine"] = "made by another build"
    with pytest.raises(BackendUnavailable, match="has just built: made by another build"):
        make(bundle)
    assert names(calls)[1:] == [*("deserialize_cuda_engine", "parse"), *("build_serialized_network", names(calls)[1])]
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "building again" in warning
    assert "TensorRT cannot load it: made by another build" in warning


def test_plan_of_another_version(
    bundle: Bundle, calls: Calls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make(bundle)
    calls.clear()
    monkeypatch.setitem(sys.modules, "tensorrt", make_stand_in("tensorrt", "11.5.0.0", calls))
    make(bundle)
    assert "build_serialized_network" in names(calls)
    assert "its version is '11.4.0.1', not '11.5.0.0'" in caplog.text


def test_cache_that_cannot_be_written(
    bundle: Bundle, calls: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BTNET_CACHE", str(tmp_path / "file"))
    assert run(make(bundle), 7, draw(1, 7)).any()
    assert "cannot keep the plan" in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        "set_input_shape",
        "update_device_memory_size_for_shapes",
        "set_tensor_address",
        "execute_async_v3",
        "create_execution_context",
        "set_runtime_cache",
    ],
)
def test_failures(bundle: Bundle, calls: Calls, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each is an exception with what TensorRT has said, and the executor goes on afterwards."""
    if name == "set_runtime_cache":
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", make_stand_in("tensorrt_rtx", "1.7.1.1", calls))
    executor = make(bundle)
    calls.failing = {name: "Error Code 1: Cuda Runtime (an illegal thing)"}
    with pytest.raises(BtnetError, match="branch for 7: Error Code 1: Cuda Runtime") as caught:
        run(executor, 7, draw(2, 7))
    assert not isinstance(caught.value, MemoryError)
    calls.failing = {name: "Error Code 2: OutOfMemory (Requested size was 9 bytes.)"}
    with pytest.raises(MemoryError) as memory:
        run(executor, 7, draw(2, 7))
    assert "illegal" not in str(memory.value), "what was said about the failure before"
    calls.failing = {}
    assert run(executor, 7, draw(2, 7)).any()


def test_wrong_arguments(bundle: Bundle, calls: Calls) -> None:
    executor = make(bundle)
    with pytest.raises(InvalidOption, match=r"count must be one of \[1, 2, 4\], not 3"):
        executor.enqueue(7, 3, 0, 0, STREAM, 0)
    for use in (lambda: executor.enqueue(14, 1, 0, 0, STREAM, 0), lambda: executor.batch_sizes(14)):
        with pytest.raises(InvalidOption, match=r"resolution must be one of \[7\], not 14"):
            use()
    with pytest.raises(InvalidOption, match="precision must be one of f32, f16, int8"):
        make(bundle, precision="bf16")
    with pytest.raises(InvalidOption, match="resolution must be one of"):
        make(bundle, resolutions=[8])
    assert "execute_async_v3" not in names(calls)


def test_without_a_gpu_the_runtime_is_not_touched(bundle: Bundle, calls: Calls) -> None:
    with pytest.raises(BackendUnavailable, match="no NVIDIA GPU"):
        make(bundle, gpu=None)
    assert calls == []


@pytest.mark.parametrize("version", ["10.9.0", "12.0.1"])
def test_tensorrt_of_another_version(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", make_stand_in("tensorrt", version, Calls()))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", make_stand_in("tensorrt_rtx", "1.6.9", Calls()))
    with pytest.raises(BackendUnavailable) as caught:
        find_tensorrt(GPU)
    assert f"tensorrt is {version}, where btnet needs 11.0" in str(caught.value)
    assert "tensorrt_rtx is 1.6.9, where btnet needs 1.7" in str(caught.value)


def describe(bundle: Bundle, library: Any, **options: Any) -> dict[str, Any]:
    """What the stand-in was asked to build."""
    settings = {"target": "ampere+", "precision": "f32", "batches": BATCHES}
    key = plan_key(library, bundle, 7, **(settings | options))
    engine = library.Runtime(make_logger(library)).deserialize_cuda_engine(build_plan(library, bundle, key))
    described: dict[str, Any] = engine.description
    return described


def test_settings_of_a_build(bundle: Bundle) -> None:
    rtx = make_stand_in("tensorrt_rtx", "1.7.1", Calls())
    shapes = [[1, 3, 7, 7], [2, 3, 7, 7], [4, 3, 7, 7]]
    expected = {"tf32": False, "require_user_allocation": True, "target": "any", "input": shapes}
    assert describe(bundle, rtx) == expected
    assert describe(bundle, rtx, target="sm75")["target"] == "SM75"
    plain = make_stand_in("tensorrt", "11.4.0", Calls())
    assert describe(bundle, plain, target="sm75 Tesla T4")["target"] == "any"


def test_failing_builds(bundle: Bundle) -> None:
    calls = Calls()
    rtx = make_stand_in("tensorrt_rtx", "1.7.1", calls)
    calls.failing = {"build_serialized_network": "Error Code 1:\n Myelin"}
    with pytest.raises(BackendUnavailable, match=r"cannot build .* resolution 7 on ampere\+: Error Code 1: Myelin$"):
        describe(bundle, rtx)
    calls.failing = {"parse": ""}
    with pytest.raises(BtnetError, match=r"cannot read .*: what is wrong \(node 'where'\)"):
        describe(bundle, rtx)
    calls.failing = {"add_optimization_profile": ""}
    with pytest.raises(BackendUnavailable, match="does not accept batches of 1:2:4"):
        describe(bundle, rtx)
    with pytest.raises(InvalidOption, match=r"target must be one of ampere\+, sm75"):
        describe(bundle, rtx, target="sm86")


def test_progress_rises_to_one(bundle: Bundle) -> None:
    library = make_stand_in("tensorrt_rtx", "1.7.1", Calls())
    key = plan_key(library, bundle, 7, target="ampere+", precision="f32", batches=BATCHES)
    seen: list[float] = []
    build_plan(library, bundle, key, seen.append)
    # By hand: two outer steps, each with three of four inner ones.
    assert seen == [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.0]


def test_damaged_bundle_is_not_built(bundle: Bundle, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(_: Bundle) -> None:
        raise BtnetError("weights.bin is damaged")

    monkeypatch.setattr(Bundle, "verify", verify)
    with pytest.raises(BtnetError, match="damaged"):
        make(bundle)
    assert names(calls) == ["Runtime"]
    library = sys.modules["tensorrt"]
    key = plan_key(library, bundle, 7, target="sm86 Stand-in", precision="f32", batches=BATCHES)
    assert plan_cache().find(key) is None
