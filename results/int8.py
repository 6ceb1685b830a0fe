"""Measure what 8-bit graphs cost the shipped model in accuracy, and write int8.json.

    python results/int8.py [--model MODEL] [--data FOLDER]

MODEL, res50 unless it is said, gets 8-bit graphs from `btnet quantize`, calibrated with faces of the identities that
were held out of the training. With them and in float32 it embeds the faces of val_pairs, as evaluate.py has it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from btnet_eval.models import open_model
from btnet_eval.verification import read_pairs
from btnet_ext import Bundle, models
from btnet_ext.whole_files import whole_file
from evaluate import accuracies
from ship import open_faces, write_people
from train import add_data

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from common import machine

RESULT = Path(__file__).with_name("int8.json")
PRECISIONS = ("f32", "int8")


def main() -> None:
    """Quantise, evaluate, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="res50")
    add_data(parser)
    arguments = parser.parse_args()
    model, data = models.locate(arguments.model), arguments.data
    with tempfile.TemporaryDirectory() as folder:
        people, target = Path(folder) / "people", Path(folder) / "int8.btnet"
        write_people(people, open_faces(data)[1])
        line = ["btnet", "quantize", str(model), "--calibrate", str(people), "--out", str(target)]
        if status := subprocess.run(line, check=False).returncode:  # btnet has said why
            sys.exit(status)
        bundle = Bundle.open(target)
        accuracy = {name: accuracies(open_model(target, precision=name), data) for name in PRECISIONS}
        sizes = {"f32": folder_bytes(model), "with int8": folder_bytes(target)}
    result = {
        "machine": machine(),
        "model": bundle.name,
        "pairs": len(read_pairs(data / "celeba/val_pairs.tsv")),
        "accuracy": accuracy,
        "quantization": bundle.metadata["quantization"],
        "bytes": sizes,
    }
    with whole_file(RESULT) as append:
        append((json.dumps(result, indent=1) + "\n").encode())


def folder_bytes(folder: Path) -> int:
    """Bytes of all files of a bundle."""
    return sum(file.stat().st_size for file in folder.iterdir())


if __name__ == "__main__":
    main()
