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
from typing import TYPE_CHECKING, Any

from PIL import Image

import mixes
from btnet_ext import Bundle, Engine
from btnet_ext.cuda import parse_device
from btnet_ext.errors import BtnetError, BundleError

if TYPE_CHECKING:
    from btnet_train.networks import IResNet

SEED = 0
"""Of the weights."""
SMALL = ("res18", 0.125)
"""Architecture and width with --quick."""
PRECISIONS = {"cpu": ("f32", "bf16", "int8"), "gpu": ("f32", "f16", "int8")}
FACES = 8
"""That 8-bit graphs are calibrated with."""
LEAST_COSINE = 0.01
"""To the embeddings in f32: with random weights every layer is to be in 8 bits, however good that is."""


def add_options(parser: argparse.ArgumentParser, arch: str = "res50", width: float = 1.0) -> None:
    """Add --bundle, --arch and --width, with what they are unless given."""
    parser.add_argument("--bundle", type=Path, help="one that there is; int8 is measured if it has int8 graphs")
    parser.add_argument("--arch", help=f"of a bundle with random weights (default {arch}; {SMALL[0]} with --quick)")
    parser.add_argument("--width", type=float, help=f"of the same (default {width}; {SMALL[1]} with --quick)")
    parser.set_defaults(usual=(arch, width), precision=None)


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add --precision."""
    names = sorted({name for names in PRECISIONS.values() for name in names})
    parser.add_argument(
        "--precision",
        action="append",
        choices=names,
        help="one to measure, repeatable (default: all there are). A bundle with random weights has int8 only where it "
        "is named, since its 8-bit graphs are made then, which takes minutes and the extra quantize",
    )


@contextmanager
def opened(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Iterator[Bundle]:
    """Open the bundle of the options, or one with random weights that is removed at the end.

    The latter gets 8-bit graphs if --precision int8 was given. Compiled networks are kept out of the user's cache:
    $BTNET_CACHE is a folder of this process and its children.
    """
    if options.bundle is not None and (options.arch is not None or options.width is not None):
        parser.error("--bundle says what its arch and width are: give neither --arch nor --width with it")
    arch, width = SMALL if options.quick else options.usual
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BTNET_CACHE"] = str(Path(folder) / "cache")
        path = options.bundle
        if path is None:
            path = Path(folder) / "random.btnet"
            write_random(
                path,
                arch if options.arch is None else options.arch,
                width if options.width is None else options.width,
            )
            if "int8" in (options.precision or []):
                quantize(path, Path(folder) / "faces")
        try:
            bundle = Bundle.open(path)
        except BundleError as error:
            parser.error(str(error))
        yield bundle


def write_random(path: Path, arch: str, width: float) -> None:
    """Write a bundle with random weights; the run ends where that cannot be."""
    _run("btnet_train.cli", "export", path, "--random", "--seed", SEED, "--arch", arch, "--width", width)


def quantize(path: Path, folder: Path) -> None:
    """Add 8-bit graphs to a bundle, calibrated with FACES smooth images that are put into the folder.

    The run ends where that cannot be, for want of NNCF for example.
    """
    folder.mkdir()
    # Like faces, they have most of their power in low frequencies.
    for number, noise in enumerate(mixes.squares(14, FACES)):
        Image.fromarray(noise).resize((112, 112), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    limits = [f"--least-cosine={resolution}={LEAST_COSINE}" for resolution in Bundle.open(path).resolutions]
    _run("btnet_ext.cli", "quantize", path, "--calibrate", folder, *limits)


def _run(module: str, *arguments: object) -> None:
    """Run a command of this project, which says by itself why it fails.

    In a process of its own, since one that has imported PyTorch or NNCF has their threads, too.
    """
    done = subprocess.run([sys.executable, "-m", module, *map(str, arguments)], stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.returncode)


def networks(bundle: Bundle, resolutions: Sequence[int]) -> dict[int, IResNet]:
    """Make the PyTorch networks of a bundle with random weights again; the run ends if it is none."""
    from btnet_train.random_weights import random_networks

    seed = bundle.metadata.get("training", {}).get("seed")
    if seed is None:
        sys.exit("PyTorch cannot read a bundle, and only random weights can be made again")
    return random_networks(bundle.arch, bundle.width, dim=bundle.dim, resolutions=resolutions, seed=seed)


def description(bundle: Bundle, options: argparse.Namespace) -> dict[str, Any]:
    """What the settings of a benchmark say of its bundle, and whether it is a quick run."""
    found = {
        "arch": bundle.arch,
        "width": bundle.width,
        "dim": bundle.dim,
        "resolutions": list(bundle.resolutions),
        "weights": bundle.metadata.get("training", {}),
        "quick": options.quick,
    }
    if "quantization" in bundle.metadata:
        random = "seed" in found["weights"]
        faces = f"smooth random images, to a cosine of {LEAST_COSINE} or more" if random else "faces"
        found["int8"] = f"calibrated with {bundle.metadata['quantization']['faces']} {faces}"
    return found


def available(
    bundle: Bundle, wanted: Sequence[str] | None = None, device: str = "cpu"
) -> tuple[list[str], dict[str, str]]:
    """Precisions that the engine has on a device for a bundle, and why it lacks others; ends the run if it has none."""
    there, absent = [], {}
    for precision in wanted or PRECISIONS["cpu" if parse_device(device) is None else "gpu"]:
        try:
            Engine(bundle.path, device=device, precision=precision, resolutions=bundle.resolutions[:1])
        except BtnetError as error:
            absent[precision] = str(error)
        else:
            there.append(precision)
    if not there:
        sys.exit(f"nothing to measure on device {device!r}: {'; '.join(dict.fromkeys(absent.values()))}")
    return there, absent
