"""The bundle that a benchmark runs, and the precisions that a device has for it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from btnet_ext import Bundle, Engine
from btnet_ext.cuda import parse_device
from btnet_ext.errors import BackendUnavailable, BundleError

SEED = 0
"""Of the weights."""
PRECISIONS = {"cpu": ("f32", "bf16", "int8"), "gpu": ("f32", "f16", "int8")}


def add_options(parser: argparse.ArgumentParser, arch: str = "res50", width: float = 1.0) -> None:
    """Add --bundle, --arch and --width, with what they are unless given."""
    parser.add_argument("--bundle", type=Path, help="one that there is; int8 is measured if it has int8 graphs")
    parser.add_argument("--arch", help=f"of a bundle with random weights (default {arch}; res18 with --quick)")
    parser.add_argument("--width", type=float, help=f"of the same (default {width}; 0.125 with --quick)")
    parser.set_defaults(usual=(arch, width))


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add --precision."""
    names = sorted({name for names in PRECISIONS.values() for name in names})
    parser.add_argument(
        "--precision", action="append", choices=names, help="one to measure, repeatable (default: all there are)"
    )


@contextmanager
def opened(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Iterator[Bundle]:
    """Open the bundle of the options, or one with random weights that is removed at the end.

    Compiled networks are kept out of the user's cache: $BTNET_CACHE is a folder of this process and its children.
    """
    if options.bundle and (options.arch or options.width):
        parser.error("--bundle says what its arch and width are: give neither --arch nor --width with it")
    arch, width = ("res18", 0.125) if options.quick else options.usual
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BTNET_CACHE"] = str(Path(folder) / "cache")
        path = options.bundle or Path(folder) / "random.btnet"
        if not options.bundle:
            # By the command, since a process that has imported torch has its threads, too.
            command = [sys.executable, "-m", "btnet_train.cli", "export", str(path), "--random", "--seed", str(SEED)]
            command += ["--arch", options.arch or arch, "--width", str(options.width or width)]
            if code := subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
                sys.exit(code)  # it has said why
        try:
            bundle = Bundle.open(path)
        except BundleError as error:
            parser.error(str(error))
        yield bundle


def description(bundle: Bundle) -> dict[str, Any]:
    """What the settings of a benchmark say of its bundle."""
    return {
        "arch": bundle.arch,
        "width": bundle.width,
        "dim": bundle.dim,
        "resolutions": list(bundle.resolutions),
        "weights": bundle.metadata.get("training", {}),
    }


def available(
    bundle: Bundle, wanted: Sequence[str] | None = None, device: str = "cpu"
) -> tuple[list[str], dict[str, str]]:
    """Precisions that the engine has on a device for a bundle, and why it lacks others; ends the run if it has none."""
    there, absent = [], {}
    for precision in wanted or PRECISIONS["cpu" if parse_device(device) is None else "gpu"]:
        try:
            Engine(bundle.path, device=device, precision=precision, resolutions=bundle.resolutions[:1])
        except BackendUnavailable as error:
            absent[precision] = str(error)
        else:
            there.append(precision)
    if not there:
        sys.exit(f"nothing to measure on device {device!r}: {'; '.join(dict.fromkeys(absent.values()))}")
    return there, absent
