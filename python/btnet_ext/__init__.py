"""btnet: face embeddings for images of any resolution.

>>> import btnet_ext
>>> engine = btnet_ext.Engine("res50")           # a model's name, or the path of a bundle  # doctest: +SKIP
>>> embeddings = engine.embed(list_of_images)    # (N, 512) float32, in the caller's order  # doctest: +SKIP

Importing this package does nothing yet: the compiled module and OpenVINO are loaded by the first name that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from btnet_ext import models
    from btnet_ext.bundle import Bundle
    from btnet_ext.engine import Engine
    from btnet_ext.errors import (
        BackendUnavailable,
        BtnetError,
        BundleError,
        DemonstrationWeights,
        InvalidImage,
        InvalidOption,
        ModelNotFound,
    )
    from btnet_ext.resample import degrade, resize

__all__ = [
    "BackendUnavailable",
    "BtnetError",
    "Bundle",
    "BundleError",
    "DemonstrationWeights",
    "Engine",
    "InvalidImage",
    "InvalidOption",
    "ModelNotFound",
    "__version__",
    "degrade",
    "models",
    "resize",
]

_HOME = {
    "Bundle": "bundle",
    "Engine": "engine",
    "degrade": "resample",
    "resize": "resample",
    "BackendUnavailable": "errors",
    "BtnetError": "errors",
    "BundleError": "errors",
    "DemonstrationWeights": "errors",
    "InvalidImage": "errors",
    "InvalidOption": "errors",
    "ModelNotFound": "errors",
}

__version__: str


def __getattr__(name: str) -> Any:
    if name == "models":
        return import_module("btnet_ext.models")
    if name == "__version__":
        from importlib.metadata import version

        return version("btnet-ext")
    if name in _HOME:
        return getattr(import_module(f"btnet_ext.{_HOME[name]}"), name)
    raise AttributeError(f"module 'btnet_ext' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
