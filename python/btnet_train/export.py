"""Writes a trunk and its branches as a bundle, format 1: model.json, a graph for each, weights.bin."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch

from btnet_ext.bundle import MODEL_FILE, describe_file, model_text
from btnet_ext.weights_file import WEIGHTS, WeightsFile
from btnet_ext.whole_files import whole_directory
from btnet_train.networks import IResNet
from btnet_train.onnx_graph import build_model
from btnet_train.topology import CANONICAL

FORMAT = 1
INPUT = {"color": "rgb", "mean": [127.5] * 3, "std": [127.5] * 3, "filter": "bicubic"}
"""What arcface_torch and BTNet expect of an image; mean and std in units of 0..255."""


def check_target(out: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise what `write_bundle` would raise for its target, before any work: OSError of a fitting kind."""
    target = Path(out)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is no directory")
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise FileExistsError(f"{target} exists, and is replaced only with overwrite=True (--overwrite)")
    if target.is_symlink() or not (target / MODEL_FILE).is_file():
        raise FileExistsError(f"{target} exists and is no bundle: it is not overwritten")


def write_bundle(
    out: str | os.PathLike[str],
    networks: Mapping[int, IResNet],
    *,
    name: str,
    license: str,  # noqa: A002 - the word of model.json
    indicator: str = "max",
    rounding: str = "ceil",
    training: Mapping[str, Any] | None = None,
    storage: str = "f32",
    overwrite: bool = False,
) -> Path:
    """Write `networks`, the trunk at 112 and its branches by resolution, as the bundle directory `out`.

    Networks are exported as in evaluation mode. Tensors with the same bytes are stored once, whichever
    graphs use them. The same input gives the same bytes. The directory appears whole or not at all; one
    that exists is replaced only with `overwrite`, and only if it is a bundle.

    training: what model.json says under that name; anything that JSON can hold.
    storage: "f32", or "f16" for weights of half the size: those of convolutions and of the fully connected
    layer are rounded to half precision (all else is stored in single precision, and all is computed in it).

    Raises ValueError for networks that do not belong together, hold values that are not finite or that
    `storage` cannot hold, FileExistsError, and OSError from the file system.
    """
    trunk = _check_networks(networks)
    _check_choice("indicator", indicator, ("max", "min", "avg"))
    _check_choice("rounding", rounding, ("floor", "near", "ceil"))
    _check_choice("storage", storage, ("f32", "f16"))
    check_target(out, overwrite)
    resolutions = sorted(networks)
    graphs = {str(resolution): f"branch_{resolution}.onnx" for resolution in resolutions}
    with whole_directory(Path(out)) as folder:
        with (folder / WEIGHTS).open("xb") as file:
            weights = WeightsFile(file)
            # The trunk comes first, so that its tensors lie together whatever branches there are.
            for resolution in reversed(resolutions):
                model = _build_model(networks[resolution], weights, half=storage == "f16")
                (folder / graphs[str(resolution)]).write_bytes(model.SerializeToString(deterministic=True))
        files = {file: describe_file(folder / file) for file in (*graphs.values(), WEIGHTS)}
        metadata = {
            "format": FORMAT,
            "name": name,
            "arch": trunk.arch,
            "width": trunk.width,
            "dim": trunk.dim,
            "canonical": CANONICAL,
            "resolutions": resolutions,
            "input": INPUT,
            "selection": {"indicator": indicator, "rounding": rounding},
            "graphs": {"f32": graphs},
            "files": files,
            "license": license,
            "thresholds": {},
            "training": dict(training or {}),
        }
        (folder / MODEL_FILE).write_text(model_text(metadata), encoding="utf-8")
    return Path(out)


def _check_networks(networks: Mapping[int, IResNet]) -> IResNet:
    """Return the trunk if all networks belong to it and can be run. ValueError otherwise."""
    if CANONICAL not in networks:
        raise ValueError(f"networks must have the trunk, resolution {CANONICAL}, got {sorted(networks)}")
    trunk = networks[CANONICAL]
    expected = (trunk.arch, trunk.width, trunk.dim)
    for resolution, network in networks.items():
        if network.resolution != resolution:
            raise ValueError(f"networks[{resolution}] was built for resolution {network.resolution}")
        if (network.arch, network.width, network.dim) != expected:
            raise ValueError(
                f"networks[{resolution}] is {network.arch} of width {network.width} and dim {network.dim}, "
                f"but the trunk is {trunk.arch} of width {trunk.width} and dim {trunk.dim}"
            )
        for name, tensor in network.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"networks[{resolution}]: {name} has values that are not finite")
    return trunk


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{option} must be one of {', '.join(choices)}, got {value!r}")


def _build_model(network: IResNet, weights: WeightsFile, half: bool) -> onnx.ModelProto:
    try:
        return build_model(network, weights, half=half)
    except ValueError as error:
        raise ValueError(f"networks[{network.resolution}]: {error}") from None
