"""Runs the branches of a bundle on an NVIDIA GPU with TensorRT, through plans that are built once and kept."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

from btnet_ext._native import core
from btnet_ext.bundle import INPUT, OUTPUT, Bundle
from btnet_ext.errors import BackendUnavailable, BtnetError, InvalidOption
from btnet_ext.trt_build import Progress, build_plan
from btnet_ext.trt_library import Gpu, find_tensorrt, make_logger, plan_target
from btnet_ext.trt_plans import Batches, PlanCache, PlanKey

BATCHES = Batches(1, 32, 256)

Allocate: TypeAlias = Callable[[int], Any]
"""Takes so many bytes of device memory, at a multiple of 256, into an object that has their `address`, an integer."""

_log = logging.getLogger(__name__)


def plan_cache() -> PlanCache:
    """Where plans are kept: in $BTNET_CACHE, beside the networks compiled for CPUs."""
    return PlanCache(core.cache_folder() / "tensorrt")


def plan_key(
    library: ModuleType,
    bundle: Bundle,
    resolution: int,
    *,
    target: str,
    precision: str,
    batches: Batches = BATCHES,
) -> PlanKey:
    """Return the key of a plan of this bundle and this TensorRT. target: see `plan_target`."""
    return PlanKey(
        digest=bundle.digest,
        resolution=resolution,
        precision=precision,
        batches=batches,
        target=target,
        flavour=library.__name__,
        version=library.__version__,
    )


def prepare_plan(library: ModuleType, bundle: Bundle, key: PlanKey, progress: Progress | None = None) -> Path:
    """Build a plan into the cache, unless it is there, and return where it is. Raises OSError, and as `build_plan`."""
    cache = plan_cache()
    if cache.find(key) is not None:
        return cache.path(key)
    return cache.store(key, _build(library, bundle, key, progress))


def _build(library: ModuleType, bundle: Bundle, key: PlanKey, progress: Progress | None = None) -> bytes:
    bundle.verify()  # the key stands for what model.json says, so nothing else must get into the cache
    return build_plan(library, bundle, key, progress)


class _Block(NamedTuple):
    owner: Any
    address: int
    size: int


class _Context(NamedTuple):
    context: Any
    block: _Block  # what it computes in


class TensorRTExecutor:
    """Runs a bundle's networks: what btnet/device_executor.h asks of an executor.

    Each branch has an engine, and for each slot and size of a batch an execution context, made when it is first used:
    a recorded CUDA graph may only be replayed while the shapes of its context stay (TensorRT's best practices). Those
    of a slot and branch follow each other, and share memory. Plans that are not in the cache are built, which takes
    minutes and is logged.
    All this happens on the GPU that is the current one of the calling thread.

    Args:
        bundle: what to run.
        gpu: the current GPU, as the driver says; None, where it has none, is refused.
        allocate: takes device memory. Raises MemoryError where there is not enough.
        precision: "f32", "f16", or "int8" where the bundle has it.
        resolutions: branches to load; None: all.
        batches: smallest, best and largest batch.

    Raises:
        BackendUnavailable: there is no GPU, no TensorRT that serves it, or TensorRT cannot build or load an engine.
        BundleError: the bundle is damaged, or not of a form that can be built.
        InvalidOption: precision or resolutions are not among those above.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        gpu: Gpu | None,
        allocate: Allocate,
        precision: str = "f16",
        resolutions: Sequence[int] | None = None,
        batches: Batches = BATCHES,
    ) -> None:
        if gpu is None:
            raise BackendUnavailable("TensorRT has nothing to run on: there is no NVIDIA GPU with a driver")
        self._library = find_tensorrt(gpu)
        self._bundle = bundle
        self._precision = precision
        self._batches = batches
        self._cache = plan_cache()
        self._lock = threading.Lock()
        self._allocate = allocate
        # They end in this order, each before what it uses.
        self._contexts: dict[tuple[int, int, int], _Context] = {}
        self._memory: dict[tuple[int, int], _Block] = {}
        self._kernels: dict[int, Any] = {}  # compiled ones, which the contexts of an engine share
        self._engines: dict[int, Any] = {}
        self._logger = make_logger(self._library)
        self._runtime = self._library.Runtime(self._logger)
        for resolution in bundle.resolutions if resolutions is None else resolutions:
            key = plan_key(
                self._library,
                bundle,
                resolution,
                target=plan_target(self._library.__name__, gpu),
                precision=precision,
                batches=batches,
            )
            self._engines[resolution] = self._load(key)

    def dim(self) -> int:
        """Length of an embedding."""
        return self._bundle.dim

    def input_element(self) -> str:
        """Type of the values that the networks take: "f32" or "f16"."""
        return "f16" if self._precision == "f16" else "f32"

    def batch_sizes(self, resolution: int) -> list[int]:
        """Return the sizes of batches that `enqueue` takes, ascending."""
        self._check_resolution(resolution)
        return self._batches.sizes()

    def enqueue(self, resolution: int, count: int, input: int, output: int, stream: int, slot: int) -> None:  # noqa: A002
        """Put the work of a batch into a CUDA stream, without waiting for it.

        The first batch of a size must not be recorded as a CUDA graph, since TensorRT then settles on shapes; those
        after it may be.

        Args:
            resolution: the branch.
            count: images; one of `batch_sizes`.
            input: address of count x 3 x resolution x resolution values, normalised, in device memory.
            output: address of count x dim float32 in device memory, for raw embeddings.
            stream: the CUDA stream, as a number.
            slot: calls of different slots may be in progress at once, those of one slot follow each other.

        Raises:
            MemoryError: the device has too little memory.
            BtnetError: TensorRT failed; its own words say why. The executor stays usable.
        """
        if count not in self.batch_sizes(resolution):
            raise InvalidOption(f"count must be one of {self._batches.sizes()}, not {count!r}")
        context = self._context(resolution, slot, count)
        self._logger.errors.clear()
        # Each call returns whether it worked.
        if not (
            context.set_tensor_address(INPUT, input)
            and context.set_tensor_address(OUTPUT, output)
            and context.execute_async_v3(stream)
        ):
            raise self._failure(f"TensorRT cannot run {count} images through the branch for {resolution}")

    def release_memory(self) -> None:
        """Give back what contexts compute in. None of them is running, and no CUDA graph of one is left."""
        with self._lock:
            self._contexts.clear()
            self._memory.clear()

    def _check_resolution(self, resolution: int) -> None:
        if resolution not in self._engines:
            raise InvalidOption(f"resolution must be one of {sorted(self._engines)}, not {resolution!r}")

    def _context(self, resolution: int, slot: int, count: int) -> Any:
        with self._lock:
            found = self._contexts.get((resolution, slot, count))
            if found is None:
                self._logger.errors.clear()
                context = self._make_context(resolution)
                if context is None or not context.set_input_shape(INPUT, (count, 3, resolution, resolution)):
                    raise self._failure(
                        f"TensorRT cannot make a context of {count} images for the branch for {resolution}"
                    )
                size = context.update_device_memory_size_for_shapes()
                if size == 0:  # an error, in TensorRT's words
                    raise self._failure(
                        f"TensorRT cannot tell how much memory {count} images need in the branch for {resolution}"
                    )
                block = self._block(resolution, slot, size)
                context.set_device_memory(block.address, block.size)
                found = self._contexts[resolution, slot, count] = _Context(context, block)
        return found.context

    def _block(self, resolution: int, slot: int, size: int) -> _Block:
        """Return memory of at least `size` bytes; contexts that were given a smaller block keep it."""
        block = self._memory.get((resolution, slot))
        if block is None or block.size < size:
            owner = self._allocate(size)
            block = self._memory[resolution, slot] = _Block(owner, owner.address, size)
        return block

    def _make_context(self, resolution: int) -> Any:
        engine = self._engines[resolution]
        memory = self._library.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._library.__name__ == "tensorrt":
            return engine.create_execution_context(memory)
        # tensorrt_rtx compiles kernels for the shapes that it meets, by default in the background: when a batch is
        # recorded as a graph, they may be there or not. Eagerly, it has them after the first batch of a size.
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(memory)
        strategy = self._library.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = strategy
        if resolution not in self._kernels:
            self._kernels[resolution] = config.create_runtime_cache()
        if not config.set_runtime_cache(self._kernels[resolution]):
            return None
        return engine.create_execution_context(config)

    def _failure(self, what: str) -> Exception:
        """Return the exception for a call that failed, with what TensorRT has said since the last one."""
        said = "; ".join(self._logger.errors) or "it does not say why"
        self._logger.errors.clear()
        kind = MemoryError if "out of memory" in said.lower() or "OutOfMemory" in said else BtnetError
        return kind(f"{what}: {said}")

    def _load(self, key: PlanKey) -> Any:
        plan = self._cache.find(key)
        if plan is not None:
            self._logger.errors.clear()
            engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is not None:
                return engine
            failure = self._failure("TensorRT cannot load it")
            if isinstance(failure, MemoryError):
                raise BackendUnavailable(
                    f"there is too little memory for the engine in {self._cache.path(key)}: {failure}"
                )
            self._cache.refuse(key, str(failure))
        engine = self._runtime.deserialize_cuda_engine(self._build(key))
        if engine is None:
            raise BackendUnavailable(str(self._failure("TensorRT cannot load the engine that it has just built")))
        return engine

    def _build(self, key: PlanKey) -> bytes:
        plan = _build(self._library, self._bundle, key)
        try:
            self._cache.store(key, plan)
        except OSError as error:
            _log.warning("cannot keep the plan, which will be built again next time; set BTNET_CACHE: %s", error)
        return plan
