"""Opens a bundle on an NVIDIA GPU: the native pipeline with TensorRT as its executor."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
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
TARGETS = ("auto", "cuda", AMPERE_AND_LATER, TURING)

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
            f"device 'cuda' is not available: this build of btnet has no CUDA module, for want of nvcc ({error})"
        ) from error


def find_gpu(device: int) -> Gpu:
    """Describe a GPU that btnet can use. Raises `BackendUnavailable` with the reason where it cannot."""
    module = native()
    # Before anything of TensorRT, whose runtime crashes without a driver.
    module.check_device(device)
    gpu = Gpu(*module.describe_device(device))
    find_tensorrt(gpu)
    return gpu


def find_builder(target: str) -> tuple[ModuleType, str]:
    """Return the TensorRT that builds engines for `target`, and what plans have as their target.

    target: "cuda", the first GPU of this machine; "ampere+" or "sm75", the cards that `tensorrt_rtx` builds for without
    a GPU; "auto": the GPU where there is one to use, and "ampere+" elsewhere.
    Raises `BackendUnavailable`, which names the reason; `InvalidOption`.
    """
    if target not in TARGETS:
        raise InvalidOption(f"target must be one of {', '.join(TARGETS)}, not {target!r}")
    if target == "auto":
        try:
            return find_builder("cuda")
        except BackendUnavailable as error:
            _log.info("building for %s, since %s", AMPERE_AND_LATER, error)
            target = AMPERE_AND_LATER
    if target == "cuda":
        gpu = find_gpu(0)
        library = find_tensorrt(gpu)
        return library, plan_target(library.__name__, gpu)
    return find_tensorrt(), target


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
    with native().CurrentDevice(device):
        executor = TensorRTExecutor(
            bundle,
            gpu=gpu,
            allocate=native().DeviceBuffer,
            precision=precision,
            resolutions=list(resolutions) or None,
        )
        return native().Pipeline(
            bundle.path,
            executor,
            device=device,
            resolutions=list(resolutions),
            indicator=indicator,
            rounding=rounding,
            color=color,
        )
