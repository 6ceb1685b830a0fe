"""Train the models that are compared, and then the one that is shipped; what was interrupted is gone on with.

    python results/train.py RUNS [--data FOLDER] [--only MODEL] [--stop-after MINUTES] [--precision P]

FOLDER has celeba/train112.zip, celeba/train56.zip, utkface/unlabeled112.zip and teacher/mobilefacenet.onnx; without
--data it is $BTNET_DATA. Each run goes to the folder in RUNS that has the name of its recipe. Exit code 130: stopped
before the end, by Ctrl-C, too; the same command goes on, on another machine in another precision if need be.
RUNS/trunk_outputs takes 11 GB for each of two trunks, and may be deleted when the branches of one are trained.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RECIPES = Path(__file__).with_name("recipes")
MODELS = ("phi_mr", "btnet", "phi_hr", "phi_mm", "res50_trunk", "res50")
STARTS = {
    "btnet": {"--trunk": "phi_mr/112"},
    "res50_trunk": {"--previous": "phi_hr"},
    "res50": {"--trunk": "res50_trunk/112"},
}
"""Which runs a run is given."""

STOPPED = 130
"""Exit code of btnet-train, and of this script, for a training that can be gone on with."""

LABELED = ("celeba/train112.zip", "celeba/train56.zip")
UNLABELED = ("utkface/unlabeled112.zip",)

HELD_OUT = 90
"""Identities of train112 on which settings were chosen; no network sees them."""

# ImageNet's, as the teacher expects them, in units of 0 to 255.
TEACHER_MEAN = "123.675,116.28,103.53"
TEACHER_STD = "58.395,57.12,57.375"


def command(model: str, runs: Path, data: Path) -> list[str]:
    """Return the command line that trains a model."""
    line = ["btnet-train", "fit", str(RECIPES / f"{model}.toml"), "--out", str(runs / model)]
    for option, archives in (("--data", LABELED), ("--unlabeled", UNLABELED)):
        for archive in archives:
            line += [option, str(data / archive)]
    line += ["--shared-identities", "--held-out", str(HELD_OUT)]
    line += ["--teacher", str(data / "teacher/mobilefacenet.onnx")]
    line += ["--teacher-mean", TEACHER_MEAN, "--teacher-std", TEACHER_STD, "--targets", str(runs), "--seed", "0"]
    line += ["--accelerator", "cpu", "--compile", "--workers", "1"]
    for option, run in STARTS.get(model, {}).items():
        line += [option, str(runs / run)]
    if "--trunk" in STARTS.get(model, {}):
        line += ["--trunk-outputs", str(runs / "trunk_outputs")]
    return line


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add --data."""
    given = os.environ.get("BTNET_DATA")
    help_ = "folder of the faces and the teacher (default: $BTNET_DATA)"
    parser.add_argument("--data", type=Path, default=given, required=given is None, metavar="FOLDER", help=help_)


def main() -> None:
    """Run the commands until one does not reach its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    add_data(parser)
    parser.add_argument("--only", choices=MODELS, help="train this one alone")
    parser.add_argument("--stop-after", type=float, default=float("inf"), metavar="MINUTES")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    help_ = "bf16-mixed is twice as fast where the CPU has it"
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true", help=help_)
    arguments = parser.parse_args()
    # Ctrl-C is for btnet-train, which the terminal tells, too: it saves its state before it ends.
    signal.signal(signal.SIGINT, lambda *_: None)
    end = time.monotonic() + 60 * arguments.stop_after
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    for model in [arguments.only] if arguments.only else MODELS:
        left = (end - time.monotonic()) / 60
        if left <= 0:
            sys.exit(STOPPED)
        line = [*command(model, arguments.runs, arguments.data), "--precision", arguments.precision]
        line += ["--stop-after", f"{left:.3f}"]
        status = subprocess.run(line, env=environment, check=False).returncode
        if status:
            sys.exit(status)


if __name__ == "__main__":
    main()
