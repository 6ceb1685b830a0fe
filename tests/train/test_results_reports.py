"""results/reports.py: what each report is made with."""

import sys
from pathlib import Path

# At the end: this script must not take the place of another module of its name.
sys.path.append(str(Path(__file__).parents[2] / "results"))

import reports

SIZES = ["--resolutions", "112,28,14,7"]


def test_verification_is_of_pairs_and_their_images() -> None:
    """No preparation is said where there is no ONNX model: btnet-eval refuses it for bundles alone."""
    given = ["data/celeba/val_pairs.tsv", "--images", "data/celeba/val112.zip"]
    expected = ["btnet-eval", "verify", *given, *SIZES, "--out", "verify", "--model", "res50", "--model", "a.btnet"]
    assert reports.command("verify", ["res50", "a.btnet"]) == expected


def test_the_teacher_is_prepared_as_it_was_trained() -> None:
    """With the mean and the standard deviation of ImageNet, in units of 0 to 255."""
    preparation = ["--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375"]
    models = ["--model", "res50", "--model", "teacher=data/teacher/mobilefacenet.onnx", *preparation]
    expected = ["btnet-eval", "identify", "data/celeba/val112.zip", *SIZES, "--out", "identify", *models]
    assert reports.command("identify", ["res50", "teacher"]) == expected
