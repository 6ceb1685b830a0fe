"""TensorRT on a GPU, where there is one. The executor: batch sizes, slots, recorded graphs, in memory of torch's; and
the engine with it.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from btnet_ext import BackendUnavailable, Bundle, Engine
from btnet_ext.tensorrt import TensorRTExecutor
from btnet_ext.trt_library import Gpu, find_tensorrt
from btnet_ext.trt_plans import Batches
from missing import give_up
from reference import Embeddings, faces
from stand_in_tensorrt import one_thread

pytestmark = pytest.mark.tensorrt

SEED = 42
FARTHEST = {"f32": 1e-4, "f16": 0.014}
"""Distance of embeddings, as a part of their length. Weights in TF32 alone make 5e-4; 0.014 is a cosine of 0.9999."""


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    if not torch.cuda.is_available():
        give_up("BTNET_REQUIRE_TENSORRT", "no GPU, or this torch has no CUDA")
    found = Gpu(torch.cuda.get_device_name(), torch.cuda.get_device_capability())
    try:
        find_tensorrt(found)
    except BackendUnavailable as error:
        give_up("BTNET_REQUIRE_TENSORRT", str(error))
    return found


class Buffer:
    def __init__(self, size: int) -> None:
        self._memory = torch.empty(size, dtype=torch.uint8, device="cuda")
        self.address = self._memory.data_ptr()


def check(actual: Embeddings, expected: Embeddings, precision: str) -> None:
    distances = np.linalg.norm(actual - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert distances.max() <= FARTHEST[precision]


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_on_a_gpu(small_bundle: Path, gpu: Gpu, precision: str) -> None:
    bundle = Bundle.open(small_bundle)
    executor = TensorRTExecutor(bundle, gpu=gpu, allocate=Buffer, precision=precision, batches=Batches(1, 4, 8))
    kind = torch.float16 if executor.input_element() == "f16" else torch.float32
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    generator = np.random.default_rng(SEED)
    for side in bundle.resolutions:
        session = onnxruntime.InferenceSession(str(bundle.path / f"branch_{side}.onnx"), one_thread())
        for slot, count in enumerate(executor.batch_sizes(side)):
            values = generator.uniform(-1, 1, (count, 3, side, side)).astype(np.float32)
            expected = np.asarray(session.run(["embedding"], {"input": values})[0])
            images = torch.from_numpy(values).to("cuda", kind)
            rows = torch.zeros((count, executor.dim()), device="cuda")
            work = (side, count, images.data_ptr(), rows.data_ptr(), stream.cuda_stream, slot % 2)
            torch.cuda.synchronize()
            executor.enqueue(*work)
            stream.synchronize()
            check(rows.cpu().numpy(), expected, precision)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="relaxed"):  # as the pipeline
                executor.enqueue(*work)
            rows.zero_()
            graph.replay()
            torch.cuda.synchronize()
            check(rows.cpu().numpy(), expected, precision)


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_engine_on_a_gpu(small_bundle: Path, gpu: Gpu, precision: str) -> None:
    images = faces([(7, 6), (12, 9), (25, 28), (60, 50), (112, 112)] * 20, SEED)
    expected = Engine(small_bundle).embed(images, flip=True)
    engine = Engine(small_bundle, device="cuda", precision=precision)
    for _ in range(3):  # cold, recording graphs, replaying them
        check(engine.embed(images, flip=True), expected, precision)
