"""Engine(device="cuda") equals the engine on the CPU: on the emulated device, and on a GPU where there is one."""

import gc
import io
import logging
import sys
import threading
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import devices
import numpy as np
import pytest
from devices import Device, DLPackArray, EmulatedDevice, LateArray
from kernels import GPU
from PIL import Image

from btnet_ext import BackendUnavailable, BtnetError, Engine, InvalidImage, InvalidOption, cuda
from btnet_ext.device_arrays import DeviceMemory
from btnet_ext.images import as_pixel_list
from btnet_ext.trt_library import Gpu, find_tensorrt
from reference import cosines

SEED = 12
RESOLUTIONS = [7, 14, 28, 112]


@pytest.fixture(scope="module")
def built(cuda_home: Path, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> EmulatedDevice:
    folder = tmp_path_factory.mktemp("module")
    return EmulatedDevice(devices.build_module(folder, cuda_home / "include", installed))


@pytest.fixture
def emulated_device(built: EmulatedDevice, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedDevice]:
    built.set_devices(1)
    built.set_capacity(2**40)
    devices.install(monkeypatch, built)
    yield built
    cuda.native.cache_clear()
    assert built.live_blocks() == 0


@pytest.fixture(scope="session")
def gpu_calls(gpu: Gpu, cuda_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return devices.build_calls(tmp_path_factory.mktemp("gpu_calls"), cuda_home)


@pytest.fixture
def gpu_device(gpu_calls: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    device = Device(cuda.native(), gpu_calls)
    devices.install(monkeypatch, device)
    gc.disable()  # in a host function it could give back device memory, which is forbidden there
    yield device
    gc.enable()


@pytest.fixture(params=["emulated", GPU])
def device(request: pytest.FixtureRequest) -> Device:
    """A device that all tests can use."""
    found: Device = request.getfixturevalue(f"{request.param}_device")
    return found


def noise(count: int, longest: int) -> list[np.ndarray]:
    random = np.random.default_rng(SEED)
    shapes = random.integers(1, longest + 1, (count, 2))
    return [random.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]


def check(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    scale = np.linalg.norm(expected, axis=1)
    assert np.all(np.linalg.norm(actual - expected, axis=1) <= 2e-5 * scale)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_equals_the_cpu(device: Device, small_bundle: Path, flip: bool, normalize: bool) -> None:
    images = [*noise(9, 30), noise(1, 200)[0], noise(1, 30)[0][..., ::-1], noise(1, 30)[0][::-1, ::2, 0]]
    expected = Engine(small_bundle).embed(images, flip=flip, normalize=normalize)
    engine = Engine(small_bundle, device="cuda")
    assert engine.device == "cuda:0"
    for _ in range(3):  # cold, recording graphs, replaying them
        check(engine.embed(images, flip=flip, normalize=normalize), expected)


@pytest.fixture(scope="module")
def crops(data_folder: Path) -> list[np.ndarray]:
    """The native crops, and the same shrunk to 5 to 60 px: all branches are in use."""
    with zipfile.ZipFile(data_folder / "celeba" / "native_crops.zip") as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/"))
        images = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
    sides = np.random.default_rng(SEED).integers(5, 61, len(images))
    shrunk = [image.resize((side, side), Image.Resampling.BOX) for image, side in zip(images, sides, strict=True)]
    return [np.asarray(image) for image in (*images, *shrunk)]


def test_native_crops(device: Device, small_bundle: Path, crops: list[np.ndarray]) -> None:
    cpu, gpu = Engine(small_bundle), Engine(small_bundle, device="cuda")
    assert set(gpu.select(crops)) == set(RESOLUTIONS)
    np.testing.assert_array_equal(gpu.select(crops), cpu.select(crops))
    check(gpu.embed(crops), cpu.embed(crops))


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_any_number_of_images(device: Device, small_bundle: Path, count: int) -> None:
    images = noise(count, 8)
    expected = Engine(small_bundle, resolutions=[7]).embed(images)
    engine = Engine(small_bundle, device="cuda:0", resolutions=[7])
    check(engine.embed(images), expected)
    blocks = list(engine.embed_stream(iter(images), batch_size=300))
    assert [len(block) for block in blocks] == [min(300, count - start) for start in range(0, count, 300)]
    if blocks:
        check(np.concatenate(blocks), expected)


def test_images_in_device_memory(device: Device, small_bundle: Path) -> None:
    images = noise(6, 40)
    expected = Engine(small_bundle).embed([*images, images[0][::-1, :, ::-1]])
    engine = Engine(small_bundle, device="cuda")
    mixed: list[Any] = [device.upload(image) if index % 2 else image for index, image in enumerate(images)]
    check(engine.embed([*mixed, device.upload(images[0][::-1, :, ::-1])]), expected)
    batch = np.stack([images[0]] * 3)
    check(engine.embed(device.upload(batch)), np.repeat(expected[:1], 3, axis=0))
    uploaded: Any = device.upload(batch)
    blocks = list(engine.embed_stream(uploaded, batch_size=2))
    assert [len(block) for block in blocks] == [2, 1]
    check(np.concatenate(blocks), np.repeat(expected[:1], 3, axis=0))
    np.testing.assert_array_equal(engine.select(mixed), engine.select(images))


def test_images_through_dlpack(device: Device, small_bundle: Path) -> None:
    images = noise(3, 40)
    flipped = images[0][::-1, :, ::-1]
    engine = Engine(small_bundle, device="cuda")
    arrays = [DLPackArray(device.upload(image)) for image in (*images, flipped)]
    check(engine.embed(arrays), Engine(small_bundle).embed([*images, flipped]))
    assert [array.streams for array in arrays] == [[1]] * 4  # the legacy default stream, which is waited for


@pytest.mark.parametrize("interface", [lambda array: array, DLPackArray], ids=["CUDA array interface", "DLPack"])
def test_images_that_another_library_still_writes(device: Device, small_bundle: Path, interface: Any) -> None:
    images = noise(5, 40)
    engine = Engine(small_bundle, device="cuda")
    check(engine.embed([interface(LateArray(device, image)) for image in images]), Engine(small_bundle).embed(images))


def test_arrays_live_as_long_as_what_is_made_of_them(device: Device) -> None:
    array = device.upload(np.zeros((2, 9, 9, 3), np.uint8))
    alive = weakref.ref(array)
    images = as_pixel_list(array, memory=DeviceMemory(device.module, 0))
    del array, images[0]
    assert alive() is not None
    del images[0]
    assert alive() is None


def test_another_device_than_the_first(emulated_device: EmulatedDevice, small_bundle: Path) -> None:
    emulated_device.set_devices(2)
    images = noise(6, 20)
    engine = Engine(small_bundle, device="cuda:1")
    with emulated_device.module.CurrentDevice(1):
        arrays: list[Any] = [emulated_device.upload(image) for image in images[:2]]
    check(engine.embed([*arrays, *images[2:]]), Engine(small_bundle).embed(images))
    with pytest.raises(InvalidImage, match=r"images\[1\] is in the memory of cuda:0, expected that of cuda:1"):
        engine.embed([images[0], emulated_device.upload(images[1])])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 16}, r"images\[0\] has another type than uint8"),
        ({"capsule_name": b"used_dltensor"}, "DLPack capsule is not a fresh one"),
    ],
)
def test_dlpack_that_holds_no_image(device: Device, small_bundle: Path, options: dict[str, Any], message: str) -> None:
    engine = Engine(small_bundle, device="cuda", resolutions=[7])
    with pytest.raises(InvalidImage, match=message):
        engine.embed([DLPackArray(device.upload(np.zeros((9, 9, 3), np.uint8)), **options)])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((9, 9, 3), np.float32), r"images\[0\] has type '<f4' in GPU memory, expected uint8"),
        (np.zeros((9, 9, 2), np.uint8), r"images\[0\] has 2 channels"),
        (np.zeros((9,), np.uint8), r"images\[0\] has shape \(9,\)"),
        (np.zeros((1, 9, 9, 3), np.uint8), r"images\[0\] has shape \(1, 9, 9, 3\)"),
    ],
)
def test_device_arrays_that_are_no_images(device: Device, small_bundle: Path, array: np.ndarray, message: str) -> None:
    engine = Engine(small_bundle, device="cuda", resolutions=[7])
    with pytest.raises(InvalidImage, match=message):
        engine.embed([device.upload(array)])


class Refusing:
    """As torch's tensors in GPU memory that require a gradient (RuntimeError) or are of float8 (KeyError)."""

    def __init__(self, kind: type[Exception], message: str) -> None:
        self._kind, self._message = kind, message

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise self._kind(self._message)


def test_arrays_that_do_not_give_up_their_pixels(device: Device, small_bundle: Path) -> None:
    engine = Engine(small_bundle, device="cuda", resolutions=[7])
    with pytest.raises(InvalidImage, match=r"images\[0\] cannot be read in GPU memory: detach it first"):
        engine.embed([Refusing(RuntimeError, "detach it first")])
    with pytest.raises(InvalidImage, match=r"images\[0\] cannot be read in GPU memory: 'float8'"):
        engine.embed([Refusing(KeyError, "float8")])
    elsewhere = DLPackArray(device.upload(np.zeros((9, 9, 3), np.uint8)), device=1)
    with pytest.raises(InvalidImage, match=r"images\[0\] is in the memory of cuda:1, expected that of cuda:0"):
        engine.embed([elsewhere])
    assert elsewhere.streams == []


def test_an_address_of_the_host_is_refused(device: Device, small_bundle: Path) -> None:
    engine = Engine(small_bundle, device="cuda", resolutions=[7])
    image = device.upload(np.zeros((9, 9, 3), np.uint8))
    image.__cuda_array_interface__["data"] = (np.zeros(300, np.uint8).ctypes.data, True)
    with pytest.raises(InvalidImage, match=r"images\[0\] is in host memory, expected that of cuda:0"):
        engine.embed([image])


def test_threads_share_an_engine(device: Device, small_bundle: Path) -> None:
    images = noise(12, 20)
    expected = Engine(small_bundle).embed(images)
    engine = Engine(small_bundle, device="cuda")
    results: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda key=key: results.update({key: engine.embed(images)})) for key in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results.values():
        check(result, expected)
    assert len(results) == 3


def test_too_little_memory(
    emulated_device: EmulatedDevice, small_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = noise(40, 8)
    expected = Engine(small_bundle, resolutions=[7]).embed(images)
    engine = Engine(small_bundle, device="cuda", resolutions=[7])
    emulated_device.set_capacity(1000)
    with pytest.raises(BtnetError, match="out of memory"):
        engine.embed(images)
    emulated_device.set_capacity(2**40)
    check(engine.embed(images), expected)
    caplog.clear()
    engine = Engine(small_bundle, device="cuda", resolutions=[7])
    emulated_device.set_capacity(90_000)
    check(engine.embed(images), expected)
    assert "half the size" in caplog.text


class FailingExecutor(devices.OnnxExecutor):
    def enqueue(self, *arguments: Any, **options: Any) -> None:
        raise RuntimeError("the executor failed")


def test_an_executor_that_throws(device: Device, small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices.install(monkeypatch, device, FailingExecutor)
    engine = Engine(small_bundle, device="cuda", resolutions=[7])
    with pytest.raises(RuntimeError, match="the executor failed"):
        engine.embed(noise(3, 7))


class FullExecutor(devices.OnnxExecutor):
    released = 0

    def enqueue(self, *arguments: Any, **options: Any) -> None:
        raise MemoryError("there is no room")

    def release_memory(self) -> None:
        FullExecutor.released += 1


def test_an_executor_without_memory(
    device: Device, small_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told to give back what it has before each attempt, and its own words are all that is said."""
    devices.install(monkeypatch, device, FullExecutor)
    engine = Engine(small_bundle, device="cuda", resolutions=[7])
    with pytest.raises(BtnetError, match=r"^there is no room$"):
        engine.embed(noise(3, 7))
    assert caplog.messages
    assert FullExecutor.released == len(caplog.messages) + 1
    assert all(message.startswith("there is no room; going on with ") for message in caplog.messages)


class InterruptedExecutor(devices.OnnxExecutor):
    calls = 0

    def enqueue(self, *arguments: Any, **options: Any) -> None:
        self.calls += 1
        if self.calls == 2:  # the one that is recorded
            raise KeyboardInterrupt
        super().enqueue(*arguments, **options)


def test_interrupt_while_a_graph_is_recorded(
    device: Device, small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices.install(monkeypatch, device, InterruptedExecutor)
    engine = Engine(small_bundle, device="cuda", resolutions=[7])
    images = noise(3, 7)
    first = engine.embed(images)
    with pytest.raises(KeyboardInterrupt):
        engine.embed(images)
    np.testing.assert_array_equal(engine.embed(images), first)


class HalfExecutor(devices.OnnxExecutor):
    element = "f16"


def test_networks_that_take_half_precision(device: Device, small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices.install(monkeypatch, device, HalfExecutor)
    images = [*noise(9, 30), noise(1, 200)[0]]
    expected = Engine(small_bundle).embed(images, flip=True)
    engine = Engine(small_bundle, device="cuda")
    for _ in range(3):
        assert cosines(engine.embed(images, flip=True), expected).min() >= 0.99999


def test_auto_takes_the_gpu(device: Device, small_bundle: Path) -> None:
    assert Engine(small_bundle, device="auto", resolutions=[7]).device == "cuda:0"


def test_auto_without_a_driver(
    emulated_device: EmulatedDevice, small_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    emulated_device.set_devices(0)
    with caplog.at_level(logging.INFO, logger="btnet_ext"):
        assert Engine(small_bundle, device="auto", resolutions=[7]).device == "cpu"
    assert "using 'cpu', since device 'cuda:0' is not available" in caplog.text
    assert "error 35" in caplog.text


def test_without_tensorrt(
    emulated_device: EmulatedDevice,
    small_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cuda, "find_tensorrt", find_tensorrt)
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    missing = "there is no TensorRT to use: tensorrt cannot be imported"
    with pytest.raises(BackendUnavailable, match=missing):
        Engine(small_bundle, device="cuda")
    with caplog.at_level(logging.INFO, logger="btnet_ext"):
        assert Engine(small_bundle, device="auto", resolutions=[7]).device == "cpu"
    assert missing in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "cuda:1"}, BackendUnavailable, "'cuda:1' is not available: this machine has 1 CUDA devices"),
        ({"precision": "bf16"}, InvalidOption, "precision must be one of f32, f16, int8 on a GPU, not 'bf16'"),
        ({"hint": "fast"}, InvalidOption, "hint must be"),
        ({"threads": 2}, InvalidOption, "threads is for device 'cpu'"),
        ({"resolutions": [8]}, InvalidOption, "resolutions names 8"),
        ({"indicator": "mean"}, InvalidOption, "indicator"),
        ({"color": "grey"}, InvalidOption, "color"),
    ],
)
def test_options_that_cannot_be(
    emulated_device: EmulatedDevice,
    small_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    """They are refused before an executor is made, which may take minutes."""
    monkeypatch.setattr(cuda, "TensorRTExecutor", lambda *_, **__: pytest.fail("an executor was made"))
    with pytest.raises(error, match=message):
        Engine(small_bundle, **{"device": "cuda", **options})


def test_without_the_module(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda.native.cache_clear()
    monkeypatch.setitem(sys.modules, "btnet_ext._cuda", None)
    with pytest.raises(BackendUnavailable, match="device 'cuda' is not available: this build of btnet has no CUDA"):
        Engine(small_bundle, device="cuda")
    cuda.native.cache_clear()
