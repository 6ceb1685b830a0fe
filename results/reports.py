"""Make the complete reports in docs/reports: models on val_pairs (1:1) and on val112 (1:N), by btnet-eval.

    python results/reports.py MODEL ... [--data FOLDER]

MODEL is "teacher", the ONNX model in FOLDER, or what btnet-eval takes: res50, or a bundle. The gallery has the first
three images of each person of val112; a third of the people are not in it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from evaluate import TEACHER
from train import TEACHER_MEAN, TEACHER_STD, add_data

REPORTS = Path(__file__).parents[1] / "docs/reports"
KINDS = (".json", ".md", ".png")
"""Of the files of a report, those that are kept."""

# Relative, so that the reports say nothing about where this machine has its data.
DATA = Path("data")
MEASURED = {
    "verify": [str(DATA / "celeba/val_pairs.tsv"), "--images", str(DATA / "celeba/val112.zip")],
    "identify": [str(DATA / "celeba/val112.zip")],
}


def command(measured: str, models: list[str]) -> list[str]:
    """Return the command line of a report."""
    line = ["btnet-eval", measured, *MEASURED[measured], "--resolutions", "112,28,14,7", "--out", measured]
    for model in models:
        line += ["--model", f"{TEACHER}={DATA / 'teacher/mobilefacenet.onnx'}" if model == TEACHER else model]
    if TEACHER in models:
        line += ["--mean", TEACHER_MEAN, "--std", TEACHER_STD]
    return line


def main() -> None:
    """Measure, and put the reports in place of those that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    add_data(parser)
    arguments = parser.parse_args()
    models = [str(Path(model).resolve()) if Path(model).exists() else model for model in arguments.models]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / DATA).symlink_to(arguments.data.resolve())
        for measured in MEASURED:
            status = subprocess.run(command(measured, models), cwd=folder, check=False).returncode
            if status:  # btnet-eval has said why
                sys.exit(status)
        shutil.rmtree(REPORTS, ignore_errors=True)
        REPORTS.mkdir()
        for file in sorted(path for measured in MEASURED for path in (folder / measured).iterdir()):
            if file.suffix in KINDS:
                shutil.copyfile(file, REPORTS / file.name)


if __name__ == "__main__":
    main()
