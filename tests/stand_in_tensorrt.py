"""A module with the part of TensorRT's API that btnet uses, and no more; networks run on ONNX Runtime, in host memory.

test_tensorrt_contract.py holds its names and signatures against those of the real modules.
"""

import ctypes
import enum
import json
import weakref
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime

MEMORY = 4096
"""What a context needs for each image."""


class Calls(list[tuple[Any, ...]]):
    """What was called, in order; a call whose name is in `failing` does not work."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[str, str] = {}  # name of a call: what the log says then
        self.ended: list[str] = []  # objects of which nobody has a reference any more

    def works(self, logger: Any, name: str, *arguments: Any) -> bool:
        self.append((name, *arguments))
        if name in self.failing:
            logger.log(logger.Severity.ERROR, self.failing[name])
        return name not in self.failing


def one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def make_stand_in(name: str, version: str, calls: Calls) -> ModuleType:
    """Return a module like tensorrt (or tensorrt_rtx, by its name)."""

    class ILogger:
        class Severity(enum.Enum):
            INTERNAL_ERROR = 0
            ERROR = 1
            WARNING = 2

        def log(self, severity: Any, msg: str) -> None: ...

    class IProgressMonitor:
        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None: ...
        def step_complete(self, phase_name: str, step: int) -> bool:
            raise NotImplementedError

        def phase_finish(self, phase_name: str) -> None: ...

    class NetworkDefinitionCreationFlag(enum.IntEnum):
        STRONGLY_TYPED = 1

    class BuilderFlag(enum.Enum):
        TF32 = 0
        if name == "tensorrt_rtx":
            REQUIRE_USER_ALLOCATION = 1

    class IOptimizationProfile:
        def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002
            self.shapes = {input: [list(shape) for shape in (min, opt, max)]}

    class IBuilderConfig:
        def __init__(self) -> None:
            self._flags = {BuilderFlag.TF32}  # on by default
            self._target = "any"
            self._monitor: Any = None
            self._profile: Any = None

        @property
        def progress_monitor(self) -> Any:
            return self._monitor

        @progress_monitor.setter
        def progress_monitor(self, monitor: Any) -> None:
            self._monitor = monitor

        def clear_flag(self, flag: Any) -> None:
            self._flags.remove(flag)

        def set_flag(self, flag: Any) -> None:
            self._flags.add(flag)

        def add_optimization_profile(self, profile: Any) -> int:
            self._profile = profile
            return -1 if "add_optimization_profile" in calls.failing else 0

        @property
        def num_compute_capabilities(self) -> int:
            return self._count

        @num_compute_capabilities.setter
        def num_compute_capabilities(self, count: int) -> None:
            self._count = count

        def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
            assert index < self._count
            self._target = compute_capability.name
            return True

        def _describe(self) -> dict[str, Any]:
            flags = {flag.name.lower(): flag in self._flags for flag in BuilderFlag}
            return {**flags, "target": self._target, **self._profile.shapes}

    class INetworkDefinition:
        pass

    class ParserError:
        def desc(self) -> str:
            return "what is\nwrong"

        def node_name(self) -> str:
            return "where"

    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            self._network, self._logger = network, logger

        @property
        def num_errors(self) -> int:
            return 1

        def get_error(self, index: int) -> ParserError:
            return ParserError()

        def parse(self, model: bytes) -> bool:
            self._network.model = model
            return calls.works(self._logger, "parse")

    class Builder:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def create_network(self, flags: int) -> INetworkDefinition:
            assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
            return INetworkDefinition()

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            if not calls.works(self._logger, "build_serialized_network"):
                return None
            monitor = config.progress_monitor
            monitor.phase_start("outer", None, 2)
            for step in range(2):
                monitor.phase_start("inner", "outer", 4)
                goes_on = all(monitor.step_complete("inner", inner) for inner in range(3))  # it ends before its last
                monitor.phase_finish("inner")
                if not (goes_on and monitor.step_complete("outer", step)):
                    return None
            monitor.phase_finish("outer")
            model: bytes = network.model
            return json.dumps(config._describe()).encode() + b"\n" + model

    class IExecutionContext:
        def __init__(self, logger: Any, model: bytes) -> None:
            self._logger = logger
            self._session = onnxruntime.InferenceSession(model, one_thread())
            self._shape: tuple[int, ...] = ()
            self._addresses: dict[str, int] = {}
            weakref.finalize(self, calls.ended.append, "context")

        def set_device_memory(self, memory: int, size: int) -> None:
            calls.append(("set_device_memory", memory, size, id(self)))

        def update_device_memory_size_for_shapes(self) -> int:
            return MEMORY * self._shape[0] * calls.works(self._logger, "update_device_memory_size_for_shapes")

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self._shape = shape
            return calls.works(self._logger, "set_input_shape", name, shape)

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._addresses[name] = memory
            return calls.works(self._logger, "set_tensor_address", name, memory)

        def execute_async_v3(self, stream_handle: int) -> bool:
            if not calls.works(self._logger, "execute_async_v3", stream_handle, id(self)):
                return False
            kind = self._session.get_inputs()[0].type
            element = np.float16 if kind == "tensor(float16)" else np.float32
            size = int(np.prod(self._shape)) * np.dtype(element).itemsize
            batch = np.frombuffer(ctypes.string_at(self._addresses["input"], size), element).reshape(self._shape)
            [rows] = self._session.run(["embedding"], {"input": batch})
            ctypes.memmove(self._addresses["embedding"], rows.tobytes(), rows.nbytes)
            return True

    class ExecutionContextAllocationStrategy(enum.Enum):
        USER_MANAGED = 2

    class IRuntimeCache:
        def __init__(self) -> None:
            weakref.finalize(self, calls.ended.append, "kernels")

    class IRuntimeConfig:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
            self.memory = strategy

        def create_runtime_cache(self) -> IRuntimeCache:
            return IRuntimeCache()

        def set_runtime_cache(self, cache: Any) -> bool:
            return calls.works(self._logger, "set_runtime_cache", id(cache))

        @property
        def dynamic_shapes_kernel_specialization_strategy(self) -> Any:
            return self._strategy

        @dynamic_shapes_kernel_specialization_strategy.setter
        def dynamic_shapes_kernel_specialization_strategy(self, strategy: Any) -> None:
            self._strategy = strategy

    class ICudaEngine:
        def __init__(self, logger: Any, plan: bytes) -> None:
            description, _, self._model = plan.partition(b"\n")
            self.description = json.loads(description)
            self._logger = logger
            weakref.finalize(self, calls.ended.append, "engine")

        def create_runtime_config(self) -> IRuntimeConfig:
            return IRuntimeConfig(self._logger)

        def _make_context(self, *named: Any) -> IExecutionContext | None:
            names = [getattr(value, "name", None) for value in named]
            if not calls.works(self._logger, "create_execution_context", *names):
                return None
            return IExecutionContext(self._logger, self._model)

        if name == "tensorrt":

            def create_execution_context(self, strategy: Any) -> IExecutionContext | None:
                return self._make_context(None, strategy)
        else:

            def create_execution_context(  # type: ignore[misc]  # another signature
                self, runtime_config: Any
            ) -> IExecutionContext | None:
                eager = runtime_config.dynamic_shapes_kernel_specialization_strategy
                return self._make_context(eager, runtime_config.memory)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger
            calls.append(("Runtime",))
            weakref.finalize(self, calls.ended.append, "runtime")

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            if not calls.works(self._logger, "deserialize_cuda_engine"):
                return None
            return ICudaEngine(self._logger, serialized_engine)

    class ComputeCapability(enum.Enum):
        SM75 = 75

    class DynamicShapesKernelSpecializationStrategy(enum.Enum):
        EAGER = 1

    kinds = [ILogger, IProgressMonitor, NetworkDefinitionCreationFlag, BuilderFlag, IOptimizationProfile]
    kinds += [IBuilderConfig, OnnxParser, ParserError, Builder, IExecutionContext, ICudaEngine, Runtime]
    kinds += [ExecutionContextAllocationStrategy]
    if name == "tensorrt_rtx":
        kinds += [ComputeCapability, DynamicShapesKernelSpecializationStrategy, IRuntimeConfig]
    else:
        del IBuilderConfig.num_compute_capabilities, IBuilderConfig.set_compute_capability, IBuilderConfig.set_flag
        del ICudaEngine.create_runtime_config
    module = ModuleType(name)
    vars(module).update({kind.__name__: kind for kind in kinds}, __version__=version)
    return module
