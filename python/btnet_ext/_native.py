"""The compiled module, ready to use: `from btnet_ext._native import core`.

`_core` links OpenVINO's libraries, which live in the `openvino` wheel. They are loaded here, from wherever Python finds
that package, so that a virtual environment, a user site beside it and an editable install work alike; an RPATH relative
to this file would know only one of these places.
"""

from __future__ import annotations

import ctypes
import importlib.util
from importlib import metadata
from pathlib import Path

from btnet_ext.errors import BackendUnavailable

OPENVINO_VERSION = "2026.4.1"
"""The version that `_core` is built with. OpenVINO keeps no binary compatibility: no other one will do."""


def _load_openvino() -> None:
    install = f"pip install openvino=={OPENVINO_VERSION}"
    spec = importlib.util.find_spec("openvino")
    if spec is None or not spec.submodule_search_locations:
        raise BackendUnavailable(f"btnet needs openvino {OPENVINO_VERSION}, and none is installed: {install}")
    try:
        version = metadata.version("openvino")
    except metadata.PackageNotFoundError:
        version = "one of unknown version"
    if version != OPENVINO_VERSION:
        raise BackendUnavailable(f"btnet needs openvino {OPENVINO_VERSION}, not {version}: {install}")
    libraries = Path(spec.submodule_search_locations[0]) / "libs"
    library = next(libraries.glob("libopenvino.so.*"), None)
    if library is None:
        raise BackendUnavailable(f"{libraries} has no libopenvino.so: reinstall it, {install}")
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        raise BackendUnavailable(f"openvino cannot be loaded ({error}): reinstall it, {install}") from error


_load_openvino()

import btnet_ext._core as core  # noqa: E402  (its libraries have to be loaded first)

__all__ = ["OPENVINO_VERSION", "core"]
