"""Which TensorRT there is to use: `tensorrt`, or `tensorrt_rtx` for RTX cards.

Both have the calls that btnet makes, with the same names and arguments, but for a few that only `tensorrt_rtx` has.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from btnet_ext.errors import BackendUnavailable

TURING, AMPERE_AND_LATER = "sm75", "ampere+"
"""What tensorrt_rtx builds engines for: all cards that it serves but Turing's, or these alone."""

_OLDEST = {"tensorrt": (11, 0), "tensorrt_rtx": (1, 7)}  # later minor versions keep the API

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gpu:
    """A GPU, as the driver describes it.

    TensorRT's runtime crashes where there is no driver. So whoever uses the runtime takes one of these: it cannot come
    from anywhere but the driver.
    """

    name: str
    capability: tuple[int, int]  # compute capability, major and minor


def find_tensorrt(gpu: Gpu | None = None) -> ModuleType:
    """Return the module `tensorrt` or `tensorrt_rtx`, imported, or raise `BackendUnavailable` with the reasons.

    gpu: where engines are to be built and to run; None: they are built here, for another machine.
    """
    reasons = []
    for name, (major, minor) in _OLDEST.items():
        try:
            plan_target(name, gpu)
            library = import_module(name)
        except BackendUnavailable as error:
            reasons.append(str(error))
        except (ImportError, OSError) as error:
            reasons.append(f"{name} cannot be imported ({error})")
        else:
            if _release(library) >= (major, minor) and _release(library)[0] == major:
                return library
            reasons.append(f"{name} is {library.__version__}, where btnet needs {major}.{minor} or a later {major}")
    raise BackendUnavailable(f"there is no TensorRT to use: {'; '.join(reasons)}")


def _release(library: ModuleType) -> tuple[int, ...]:
    return tuple(int(part) for part in library.__version__.split(".")[:2])


def plan_target(flavour: str, gpu: Gpu | None) -> str:
    """Return what engines have to be built for to run on `gpu`, in a word or two that differ where the engines do.

    flavour: "tensorrt" or "tensorrt_rtx". gpu: None means any card but Turing's.
    Raises `BackendUnavailable` where this flavour cannot do it.
    """
    if flavour == "tensorrt":
        if gpu is None:
            raise BackendUnavailable("tensorrt builds engines only on the GPU that will run them")
        # Its engines are made of kernels that were fastest on that very model.
        return f"sm{gpu.capability[0]}{gpu.capability[1]} {gpu.name}"
    if gpu is None or gpu.capability in ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1)):
        return AMPERE_AND_LATER
    if gpu.capability == (7, 5):
        return TURING
    raise BackendUnavailable(f"tensorrt_rtx does not serve the {gpu.name}, compute capability {gpu.capability}")


@cache
def make_logger(library: ModuleType) -> Any:
    """Return a TensorRT logger that hands messages on to logging, and keeps each thread's errors in its list `errors`.

    It is always the same one, since TensorRT keeps to the first that it is given; clear `errors` before a call.
    An error's text is only here: the call that failed returns None or False. Whoever made the call says it in an
    exception, so that errors go to the log as details.
    """
    severity = library.ILogger.Severity

    class Logger(library.ILogger):  # type: ignore[misc, name-defined]  # the base is known only now
        def __init__(self) -> None:
            super().__init__()
            self._of_thread = threading.local()  # engines may be used by several threads at once

        @property
        def errors(self) -> list[str]:
            said: list[str] = self._of_thread.__dict__.setdefault("errors", [])
            return said

        def log(self, level: Any, message: str) -> None:
            text = " ".join(message.split())
            if level in (severity.INTERNAL_ERROR, severity.ERROR):
                self.errors.append(text)
            _log.log(logging.WARNING if level == severity.WARNING else logging.DEBUG, "TensorRT: %s", text)

    return Logger()
