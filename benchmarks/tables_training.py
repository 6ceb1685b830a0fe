"""Tables of docs/results.md, from results/res50.json and the reports in docs/reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
from btnet_ext import Bundle
from common import place, table

ROOT = Path(__file__).parents[1]

REQUIRED = {
    "112&112": 95.0,
    "112&28": 94.5,
    "112&14": 93.0,
    "112&7": 87.0,
    "28&28": 94.0,
    "14&14": 92.0,
    "7&7": 85.5,
}
"""What the shipped model is to reach, in percent."""


def load() -> dict[str, Any]:
    """Read results/res50.json."""
    return common.load("res50", ROOT / "results")


def rates(report: str) -> str:
    """The rates of a report in docs/reports, which are its tables of one row a model, in one table."""
    sections = [
        section
        for section in common.load(report, ROOT / "docs/reports")["sections"]
        if section["columns"][:1] == ["model"] and section["title"] != "Accuracy"
    ]
    rows = [[model, section["title"], *cells] for section in sections for model, *cells in section["rows"]]
    return table(["model", "rate, percent", *sections[0]["columns"][1:]], rows)


def accuracy() -> str:
    """Accuracy of every model on the pairs, for each pair of resolutions."""
    results = load()
    models: Mapping[str, Any] = results["models"]
    columns = list(next(iter(models.values()))["accuracy"])
    rows = [
        [model, *(f"{value['mean']:.2f} ± {value['std']:.2f}" for value in measured["accuracy"].values())]
        for model, measured in models.items()
    ]
    places: dict[str, list[str]] = {}
    for model, measured in models.items():
        places.setdefault(place(measured), []).append(model)
    where = [text if len(places) == 1 else f"{', '.join(names)}: {text}." for text, names in places.items()]
    return f"{results['pairs']:,} pairs. {' '.join(where)}\n\n{table(['model', *columns], rows)}"


def shipped() -> str:
    """Accuracy of the model in the package beside what it is to reach."""
    model = Bundle.open(ROOT / "python/btnet_ext/models/res50.btnet")
    reached = model.metadata["training"]["accuracy on val_pairs, percent"]
    rows = {
        "required": [f"{value:.2f}" for value in REQUIRED.values()],
        "reached": [f"{reached[columns]:.2f}" for columns in REQUIRED],
        "difference": [f"{reached[columns] - value:+.2f}" for columns, value in REQUIRED.items()],
    }
    return table(["", *REQUIRED], [[name, *row] for name, row in rows.items()])


def compared() -> str:
    """By how much btnet is more accurate than the models it is compared with."""
    means = {
        model: {columns: value["mean"] for columns, value in measured["accuracy"].items()}
        for model, measured in load()["models"].items()
    }
    rows = [
        [other, *(f"{means['btnet'][columns] - value:+.2f}" for columns, value in means[other].items())]
        for other in ("phi_hr", "phi_mr", "phi_mm")
        if other in means
    ]
    return table(["btnet against", *means["btnet"]], rows)


def int8() -> str:
    """Accuracy of the shipped model in float32 and in 8 bits, and what is lost."""
    results = common.load("int8", ROOT / "results")
    means = {name: [value["mean"] for value in of.values()] for name, of in results["accuracy"].items()}
    rows = [[name, *(f"{mean:.2f}" for mean in of)] for name, of in means.items()]
    lost = [f"{before - after:.2f}" for before, after in zip(means["f32"], means["int8"], strict=True)]
    accuracy = table(["precision", *results["accuracy"]["f32"]], [*rows, ["lost", *lost]])
    cosines = [
        [side, f"{of['mean']:.4f}", f"{of['lowest']:.4f}", str(len(of["kept"]))]
        for side, of in results["quantization"]["cosine"].items()
    ]
    agreement = table(["branch", "mean cosine", "lowest cosine", "layers kept in float32"], cosines)
    faces = f"{results['quantization']['faces']} faces to calibrate with"
    size = f"{results['bytes']['f32'] / 1e6:.1f} MB, with 8-bit graphs {results['bytes']['with int8'] / 1e6:.1f} MB"
    head = f"{results['pairs']:,} pairs, {faces}. {place(results)}"
    return f"{head}\n\n{accuracy}\n\n{agreement}\n\nThe bundle has {size}."


def gains() -> str:
    """Gains of btnet."""
    rows = [
        [kind, columns, "not defined" if value is None else f"{value:.2f}"]
        for kind, of in load()["gains"].items()
        for columns, value in of.items()
    ]
    return table(["gain", "resolutions", "btnet"], rows)


def cost() -> str:
    """What every network cost to train and costs to run."""
    rows = []
    for model, measured in load()["models"].items():
        for resolution, network in measured.get("networks", {}).items():
            cost = [f"{network['parameters'] / 1e6:.2f}", f"{network['gmacs']:.3f}"]
            rows.append([model, resolution, *cost, f"{network['images']:,}", f"{network['seconds'] / 3600:.1f}"])
    header = ["model", "resolution", "parameters, millions", "GMACs an image", "images seen", "hours of training"]
    return table(header, rows)
