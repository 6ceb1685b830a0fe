"""Errors and warnings of btnet. An error's message is one sentence: what came, what is wrong, what was expected."""

from __future__ import annotations


class BtnetError(Exception):
    """Base of every error that btnet raises for something a caller can act on."""


class InvalidImage(BtnetError, ValueError):
    """An image that cannot be embedded or resized; the message names its index."""


class InvalidOption(BtnetError, ValueError):
    """An option with a value outside the documented ones; the message names the option."""


class BundleError(BtnetError):
    """A bundle that is missing, damaged, of another format, or that points outside itself."""


class ModelNotFound(BtnetError):
    """No model of that name in $BTNET_HOME or among the models that came with the package."""


class BackendUnavailable(BtnetError):
    """A device, precision or library that this machine or this installation cannot serve."""


class DemonstrationWeights(UserWarning):
    """A model whose weights show how btnet works and are good for nothing more; the message has their licence.

    Each such model is told of once a process, when an engine loads it.
    """


def reason(error: BaseException) -> str:
    """What an error says; of an error of the system neither its number nor its file, which the caller names."""
    return getattr(error, "strerror", None) or str(error) or repr(error)
