"""Opens a bundle on an NVIDIA GPU: the native pipeline with TensorRT as its executor."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from btnet_ext.bundle import Bundle
from btnet_ext.errors import BackendUnavailable, InvalidOption
from btnet_ext.tensorrt import TensorRTExecutor
from btnet_ext.trt_build import PRECISIONS
from btnet_ext.trt_library import AMPERE_AND_LATER, TURING, Gpu, find_tensorrt, plan_target

HINTS = ("throughput", "latency")

_log = logging.getLogger(__name__)


def parse_device(device: str) -> int | None:
    """Return the index in "cuda" (0) or "cuda:N", and None for any other text."""
    match = re.fullmatch(r"cuda(?::(\d{1,9}))?", device)
    return None if match is None else int(match[1] or 0)


@cache
def native() -> Any:
    """Return the module `btnet_ext._cuda`. Raises `BackendUnavailable` where it was not built."""
    try:
        return import_module("btnet_ext._cuda")
    except ImportError as error:
        raise BackendUnavailable(
            "device 'cuda' is not available: this build of btnet has no CUDA module, for want of nvcc of CUDA 12.8 "
            f"or later ({error})"
        ) from error


def find_gpu(device: int) -> Gpu:
    """Describe a GPU that btnet can use. Raises `BackendUnavailable` with the reason where it cannot."""
    module = native()
    gpu = Gpu(*module.describe_device(device))  # before anything of TensorRT, whose runtime crashes without a driver
    find_tensorrt(gpu)
    module.check_device(device)  # last: the context that it makes would stay where there is no TensorRT
    return gpu


def describe_runtime(device: int) -> str:
    """Name what runs the networks on a GPU: TensorRT with its version, and the card. Raises as `find_gpu`."""
    gpu = find_gpu(device)
    library = find_tensorrt(gpu)
    return f"{library.__name__} {library.__version__} on {gpu.name}"


@contextmanager
def builder_for(target: str) -> Iterator[tuple[ModuleType, str]]:
    """Yield the TensorRT that builds engines for `target`, and what plans have as their target.

    target: "cuda" or "cuda:N", a GPU of this machine, which is the current one until the end; "ampere+" or "sm75", the
    cards that `tensorrt_rtx` builds for without a GPU; "auto": the first GPU where there is one to use, and "ampere+"
    elsewhere. Raises `BackendUnavailable`, which names the reason; `InvalidOption`.
    """
    device = parse_device("cuda" if target == "auto" else target)
    if device is None and target not in (AMPERE_AND_LATER, TURING):
        raise InvalidOption(f"target must be auto, cuda, cuda:N, {AMPERE_AND_LATER} or {TURING}, not {target!r}")
    gpu = None
    if device is not None:
        try:
            gpu = find_gpu(device)
        except BackendUnavailable as error:
            if target != "auto":
                raise
            _log.info("building for %s, since %s", AMPERE_AND_LATER, error)
            target = AMPERE_AND_LATER
    library = find_tensorrt(gpu)
    if gpu is None:
        yield library, target
        return
    with native().CurrentDevice(device):
        yield library, plan_target(library.__name__, gpu)


def open_pipeline(
    bundle: Bundle,
    device: int,
    *,
    precision: str,
    hint: str,
    resolutions: Sequence[int],
    indicator: str,
    rounding: str,
    color: str,
) -> Any:
    """Return a bundle's pipeline on a GPU; it has `embed`, `select`, `dim` and `resolutions` of the native engine.

    Plans that have not been built yet are, which takes minutes; `btnet build` does it beforehand. hint: is checked, and
    makes no difference on a GPU. Raises BackendUnavailable, which names the reason; BundleError, InvalidOption.
    """
    gpu = find_gpu(device)
    for option, value, known in (("precision", precision, PRECISIONS), ("hint", hint, HINTS)):
        if value not in known:
            raise InvalidOption(f"{option} must be one of {', '.join(known)} on a GPU, not {value!r}")
    options = {"resolutions": list(resolutions), "indicator": indicator, "rounding": rounding, "color": color}
    native().check_options(bundle.path, **options)  # before plans are built
    with native().CurrentDevice(device):
        executor = TensorRTExecutor(
            bundle,
            gpu=gpu,
            allocate=native().DeviceBuffer,
            precision=precision,
            resolutions=list(resolutions) or None,
        )
        return native().Pipeline(bundle.path, executor, device=device, **options)
