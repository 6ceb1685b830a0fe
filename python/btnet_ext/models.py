"""Finds bundles by name: first a user's own in $BTNET_HOME, then those that came with the package."""

from __future__ import annotations

import builtins
import os
from pathlib import Path

from btnet_ext._native import core
from btnet_ext.errors import InvalidOption, ModelNotFound

_SUFFIX = ".btnet"


def folders() -> builtins.list[Path]:
    """Where models are looked for, in this order: $BTNET_HOME (or its default), the package."""
    return [core.model_folder(), Path(__file__).with_name("models")]


def list() -> builtins.list[str]:  # noqa: A001  (part of the API: btnet_ext.models.list())
    """Names of all models that `path` finds, sorted."""
    found = (bundle for folder in folders() for bundle in folder.glob(f"*{_SUFFIX}") if bundle.is_dir())
    return sorted({bundle.name.removesuffix(_SUFFIX) for bundle in found})


def path(name: str) -> Path:
    """The folder of the bundle called `name` (NAME.btnet), or `ModelNotFound`."""
    for folder in folders():
        bundle = folder / f"{name}{_SUFFIX}"
        if bundle.parent == folder and os.path.isdir(bundle):  # noqa: PTH112  (Path.is_dir raises for a name too long)
            return bundle
    home, _ = folders()
    hint = f", for the folder write .{os.sep}{name}" if os.path.isdir(name) else ""  # noqa: PTH112
    known = ", ".join(list()) or "none"
    raise ModelNotFound(
        f"there is no model {name!r} (known: {known}){hint}: put a bundle at {home / f'{name}{_SUFFIX}'}, "
        "give the path of one in place of a name, or write one with 'btnet-train export'"
    )


def check_own(bundle: Path, instead: str) -> None:
    """Raise `InvalidOption` for a bundle that came with the package, which nothing changes.

    instead: what to do, as an imperative.
    """
    _, shipped = folders()
    if bundle.resolve().parent == shipped.resolve():
        raise InvalidOption(f"{bundle} came with the package and is not changed: {instead}")


def locate(model: str | os.PathLike[str]) -> Path:
    """The bundle that `model` means: a path, or the name of a model.

    A path is a `Path`, or text with a separator or ending in .btnet; it is not looked at here.
    Raises `ModelNotFound` for a name that `path` does not find, and `InvalidOption` for what is neither.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise InvalidOption(f"model must be a name or a path, not a {type(model).__name__}")
    if isinstance(model, str) and os.sep not in model and not model.endswith(_SUFFIX):
        return path(model)
    if "\0" in os.fspath(model):
        raise InvalidOption(f"model must be a path without null characters, not {model!r}")
    return Path(model).expanduser().absolute()  # still the same after os.chdir
