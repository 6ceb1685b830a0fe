"""Builds a branch's network into a plan."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from btnet_ext.bundle import INPUT, Bundle
from btnet_ext.errors import BackendUnavailable, BundleError, InvalidOption
from btnet_ext.trt_library import AMPERE_AND_LATER, TURING, make_logger
from btnet_ext.trt_plans import PlanKey

PRECISIONS = ("f32", "f16", "int8")

Progress = Callable[[float], None]
"""Is told now and then which part of a build is done, from 0 to 1. It must not raise."""

_log = logging.getLogger(__name__)


def build_plan(library: ModuleType, bundle: Bundle, key: PlanKey, progress: Progress | None = None) -> bytes:
    """Build the engine that `key` describes, of a branch and the trunk behind it. Takes from seconds to minutes.

    library: what `find_tensorrt` returned; the key has its name and version. With `tensorrt_rtx`, no GPU is needed.

    Raises:
        InvalidOption: the precision or the resolution is not one that there is.
        BundleError: the branch's graph cannot be read, or not be computed in this precision.
        BackendUnavailable: TensorRT cannot build it; its own words say why.
    """
    _check(key, bundle)
    graph = _graph(bundle, key)
    logger = make_logger(library)
    logger.errors.clear()
    _log.info("building the %s engine for resolution %d with %s", key.precision, key.resolution, key.flavour)
    with _hold_interrupts() as interrupts:
        builder = library.Builder(logger)
        network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = library.OnnxParser(network, logger)  # owns the weights until the plan is built
        if not parser.parse(graph):
            raise BundleError(f"TensorRT cannot read {bundle.path}, resolution {key.resolution}: {_errors(parser)}")
        config = _configure(library, builder, key)
        config.progress_monitor = _make_monitor(library, progress, interrupts)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendUnavailable(
            f"{key.flavour} {key.version} cannot build the {key.precision} engine for resolution {key.resolution} "
            f"on {key.target}: {'; '.join(logger.errors) or 'it does not say why'}"
        )
    if progress is not None:
        progress(1.0)
    return bytes(plan)


def _check(key: PlanKey, bundle: Bundle) -> None:
    if key.precision not in PRECISIONS:
        raise InvalidOption(f"precision must be one of {', '.join(PRECISIONS)} with TensorRT, not {key.precision!r}")
    if key.resolution not in bundle.resolutions:
        raise InvalidOption(f"resolution must be one of the bundle's, {bundle.resolutions}, not {key.resolution!r}")
    targets = (AMPERE_AND_LATER, TURING)
    if key.flavour == "tensorrt_rtx" and key.target not in targets:
        raise InvalidOption(f"target must be one of {', '.join(targets)} with tensorrt_rtx, not {key.target!r}")


def _graph(bundle: Bundle, key: PlanKey) -> bytes:
    try:
        from btnet_ext.trt_graphs import load_graph  # only to build: who has plans needs no onnx
    except ModuleNotFoundError as error:
        raise BackendUnavailable(f"engines cannot be built ({error}): pip install 'btnet-ext[tensorrt]'") from error
    # On Turing, tensorrt_rtx refuses matrix products in f32, but not the same thing as a convolution.
    graph = load_graph(bundle, key.resolution, key.precision, head_as_convolution=key.target == TURING)
    return bytes(graph.SerializeToString())


def _errors(parser: Any) -> str:
    errors = (parser.get_error(index) for index in range(parser.num_errors))
    return "; ".join(f"{' '.join(error.desc().split())} (node {error.node_name()!r})" for error in errors)


def _configure(library: ModuleType, builder: Any, key: PlanKey) -> Any:
    config = builder.create_builder_config()
    config.clear_flag(library.BuilderFlag.TF32)  # on by default: it rounds what convolutions in f32 read to 10 bits
    if key.flavour == "tensorrt_rtx":  # otherwise it takes memory while it runs, which cannot be recorded as a graph
        config.set_flag(library.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if key.target == TURING:
        config.num_compute_capabilities = 1
        config.set_compute_capability(library.ComputeCapability.SM75, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *((size, 3, key.resolution, key.resolution) for size in key.batches))
    if config.add_optimization_profile(profile) < 0:
        raise BackendUnavailable(f"TensorRT does not accept batches of {':'.join(map(str, key.batches))}")
    return config


@contextmanager
def _hold_interrupts() -> Iterator[list[int]]:
    """Collect Ctrl-C in the list, and raise it at the end: an exception in a call-back would pass through TensorRT."""
    interrupts: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()  # no others get it
    if not in_main_thread or signal.getsignal(signal.SIGINT) is None:  # what C has installed cannot be put back
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupts:
        raise KeyboardInterrupt


def _make_monitor(library: ModuleType, progress: Progress | None, interrupts: list[int]) -> Any:
    """Return an IProgressMonitor that tells `progress`, and ends the build after an interrupt."""

    class Monitor(library.IProgressMonitor):  # type: ignore[misc, name-defined]  # the base is known only now
        def __init__(self) -> None:
            super().__init__()
            self._phases: dict[str, tuple[int, int]] = {}  # those within each other: steps done, steps
            self._done = 0.0
            self._lock = threading.Lock()  # TensorRT calls from threads of its own

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            with self._lock:
                self._phases[name] = (0, steps)

        def step_complete(self, name: str, step: int) -> bool:
            with self._lock:
                if name in self._phases:
                    self._phases[name] = (step + 1, self._phases[name][1])
                self._done = max(self._done, self._count())  # a phase may end before its last step
                if progress is not None:
                    progress(self._done)
            return not interrupts

        def phase_finish(self, name: str) -> None:
            with self._lock:
                self._phases.pop(name, None)

        def _count(self) -> float:
            done, share = 0.0, 1.0
            for steps_done, steps in self._phases.values():
                share /= steps
                done += share * steps_done
            return done

    return Monitor()
