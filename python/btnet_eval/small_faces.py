"""Measures models on the public benchmarks of faces that are small by nature, and writes the results as reports.

Images count at the size they have: a model of several networks is shown each at the resolution that a strategy of
branch selection gives for it (`btnet_eval.selection`), resized to a square; a model of one network resizes them itself.
They are to be faces, cut out as in the releases or aligned; nothing is detected here.

The tables have a row for each model and strategy, in percent; the numbers in the JSON are 0..1. Images that cannot be
decoded are left out, and with the last one of a person in the gallery the person's probes; the report counts them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from btnet_eval.base import DataError, Rows
from btnet_eval.datasets.images import NamedImages
from btnet_eval.datasets.lists import Labeled, with_mates
from btnet_eval.datasets.scface import METERS, SCface
from btnet_eval.datasets.survface import OpenSet
from btnet_eval.datasets.tinyface import TinyFace
from btnet_eval.identification import identify, mean_average_precision
from btnet_eval.identify import counts_section, search_prototypes
from btnet_eval.report import Section, percent
from btnet_eval.roc import auc, tar_at_far
from btnet_eval.selection import DEFAULT, STRATEGIES, Strategy, embed_selected
from btnet_eval.session import Session, image_sizes
from btnet_eval.verification import Pairs, accuracy, cosine_similarities
from btnet_eval.verify import distinct_names, pairs_among, pairs_section

SURVFACE_FPIRS = (0.3, 0.2, 0.1, 0.01)
SURVFACE_RANK = 20
SURVFACE_FARS = (0.3, 0.1, 0.01, 0.001)
TINYFACE_RANKS = (1, 5, 10, 20, 50)

_RowsOf: TypeAlias = Callable[[Sequence[str]], Rows]
"""Embeddings of named images."""

_Numbers: TypeAlias = Mapping[str, Mapping[str, Mapping[str, float | None]]]
"""By model, strategy and column of the table. None: not defined."""


@dataclass(frozen=True)
class SurvFace:
    """QMUL-SurvFace: images with who is to be searched, images with pairs, or one of both.

    As `datasets.survface.read_identification` and `read_verification` read them.
    """

    search: tuple[NamedImages, OpenSet] | None = None
    pairs: tuple[NamedImages, Pairs] | None = None


def write_survface(
    session: Session,
    data: SurvFace,
    *,
    strategies: Sequence[Strategy] = STRATEGIES,
) -> Path:
    """Measure QMUL-SurvFace, write OUT/survface.json, .md and .html; return the page's path.

    1:N: the gallery has one embedding a person, the mean of the person's embeddings as the models give them (open them
    with normalize=False, and longer ones count more); TPIR20 counts mated probes whose person is among the first 20;
    AUC is the area under TPIR20 against FPIR (see `btnet_eval.identification`). So BTNet's program has it,
    eval_survface_1n_multi_reso.py, but for the nearest of 1,000 thresholds.

    1:1: TAR at FAR and the area under the ROC, of all pairs, and the mean accuracy over the folds, with the threshold
    of a fold chosen on the others. So the release's test_face_verification.m has it, by what its ports to Python say,
    but for thresholds 0.001 apart with straight lines between them.

    Raises DataError for neither of both, for pairs of one kind, and if no image of one of the kinds can be decoded;
    what `Embedder` raises; ValueError for unknown strategies, and none; and OSError.
    """
    parts = []
    if data.search is not None:
        parts.append(_search_survface(session, *data.search, strategies))
    if data.pairs is not None:
        parts.append(_verify_survface(session, *data.pairs, strategies))
    if not parts:
        raise DataError("there is neither a gallery nor a list of pairs to be measured")
    sections = [section for of_part, _ in parts for section in of_part]
    numbers = {
        model: {
            strategy: {name: value for _, of_part in parts for name, value in of_part[model][strategy].items()}
            for strategy in by_strategy
        }
        for model, by_strategy in parts[0][1].items()
    }
    return session.report("survface", "QMUL-SurvFace", numbers, sections)


def _search_survface(
    session: Session, images: NamedImages, people: OpenSet, strategies: Sequence[Strategy]
) -> tuple[list[Section], _Numbers]:
    names = (*people.gallery.names, *people.mated.names, *people.unmated)
    sizes = image_sizes(names, images, session.problems, session.progress)
    gallery = _decoded(people.gallery, sizes)
    mated = with_mates(_decoded(people.mated, sizes), gallery, session.problems)
    left = OpenSet(gallery, mated, tuple(name for name in people.unmated if name in sizes))
    if not left.unmated:
        raise DataError(f"{images.where}: no image of an unmated probe can be decoded")

    def measure(rows: _RowsOf) -> Mapping[str, float | None]:
        found = search_prototypes(left, rows(gallery.names), rows([*mated.names, *left.unmated]))
        rates = {f"TPIR20 at FPIR {fpir:g}": found.tpir(fpir, SURVFACE_RANK) for fpir in SURVFACE_FPIRS}
        return {**rates, "AUC": found.auc(SURVFACE_RANK)}

    numbers = _measure(session, images, sizes, strategies, measure)
    note = (
        "Percent. TPIR20: mated probes whose person is among the first 20, at the lowest threshold with that FPIR. "
        "AUC: the area under TPIR20 against FPIR, 100 if all persons are found, each above all unmated probes."
    )
    return [counts_section(left), _table("Open-set identification", note, numbers)], numbers


def _verify_survface(
    session: Session, images: NamedImages, pairs: Pairs, strategies: Sequence[Strategy]
) -> tuple[list[Section], _Numbers]:
    sizes = image_sizes(distinct_names(pairs), images, session.problems, session.progress)
    left = pairs_among(pairs, sizes, images)
    left.check_kinds()

    def measure(rows: _RowsOf) -> Mapping[str, float | None]:
        first, second = rows(left.paths_a), rows(left.paths_b)
        scores = cosine_similarities(first, second)
        tars = {f"TAR at FAR {far:g}": tar_at_far(scores, left.same, far) for far in SURVFACE_FARS}
        mean = accuracy(first, second, left.same, left.folds).mean if left.in_folds else None
        return {**tars, "AUC, 1:1": auc(scores, left.same), "mean accuracy": mean}

    numbers = _measure(session, images, sizes, strategies, measure)
    note = (
        "Percent. TAR of all pairs, without interpolation; AUC: the area under the ROC; mean accuracy: over ten folds, "
        "tenths of both lists in their order, the threshold of a fold being the best one of the others."
    )
    return [pairs_section(left), _table("Verification", note, numbers)], numbers


def write_tinyface(
    session: Session,
    images: NamedImages,
    people: TinyFace,
    *,
    strategies: Sequence[Strategy] = (DEFAULT,),
) -> Path:
    """Measure TinyFace, write OUT/tinyface.json, .md and .html; return the page's path.

    Each image of the gallery counts for itself, and the distractors stand beside it: rank-1, 5, 10, 20 and 50, and the
    mean average precision, as the release's own program has them. people: as `datasets.tinyface.read_tinyface` reads
    them. Raises as `write_survface`, distractors aside, of which there may be none.
    """
    names = (*people.gallery.names, *people.probes.names, *people.distractors)
    sizes = image_sizes(names, images, session.problems, session.progress)
    gallery = _decoded(people.gallery, sizes)
    probes = with_mates(_decoded(people.probes, sizes), gallery, session.problems)
    distractors = [name for name in people.distractors if name in sizes]
    ids = np.append(gallery.identities, np.full(len(distractors), gallery.identities.min() - 1))

    def measure(rows: _RowsOf) -> Mapping[str, float | None]:
        searched = rows([*gallery.names, *distractors]), ids, rows(probes.names), probes.identities
        found = identify(*searched, max_rank=max(TINYFACE_RANKS))
        return {f"rank-{k}": found.top(k) for k in TINYFACE_RANKS} | {"mAP": mean_average_precision(*searched)}

    numbers = _measure(session, images, sizes, strategies, measure)
    columns = ["people in the gallery", "images in the gallery", "distractors", "probes"]
    counts = [len({*gallery.identities.tolist()}), len(gallery), len(distractors), len(probes)]
    sections = [
        Section("Gallery and probes", columns, [counts], "All probes are mated. Nobody in a distractor is in a probe."),
        _table("Closed-set identification", "Percent of the probes, and the mean average precision.", numbers),
    ]
    return session.report("tinyface", "TinyFace", numbers, sections)


def write_scface(
    session: Session,
    images: NamedImages,
    people: SCface,
    *,
    strategies: Sequence[Strategy] = (DEFAULT,),
) -> Path:
    """Measure SCface, write OUT/scface.json, .md and .html; return the page's path.

    Mugshots are searched for the images at each distance, apart: rank-1, and its mean over the distances. people: as
    `datasets.scface.read_scface` sorts them. Raises as `write_survface`, the distances being the kinds.
    """
    names = (*people.gallery.names, *(name for probes in people.probes.values() for name in probes.names))
    sizes = image_sizes(names, images, session.problems, session.progress)
    gallery = _decoded(people.gallery, sizes)
    probes_at = {
        distance: with_mates(_decoded(probes, sizes), gallery, session.problems)
        for distance, probes in people.probes.items()
    }

    def measure(rows: _RowsOf) -> Mapping[str, float | None]:
        searched = rows(gallery.names), gallery.identities
        rates = {
            f"{METERS[distance]:.1f} m": identify(*searched, rows(probes.names), probes.identities, max_rank=1).top(1)
            for distance, probes in probes_at.items()
        }
        return rates | {"mean": float(np.mean(list(rates.values())))}

    numbers = _measure(session, images, sizes, strategies, measure)
    columns = ["mugshots", *(f"probes at {METERS[distance]:.1f} m" for distance in probes_at)]
    sections = [
        Section("Gallery and probes", columns, [[len(gallery), *map(len, probes_at.values())]]),
        _table("Rank-1 by distance", "Percent of the probes.", numbers),
    ]
    return session.report("scface", "SCface", numbers, sections)


def _decoded(labeled: Labeled, sizes: Mapping[str, tuple[int, int]]) -> Labeled:
    """Those of which the size is known, because they can be decoded."""
    kept = [row for row, name in enumerate(labeled.names) if name in sizes]
    if not kept:
        raise DataError(f"{labeled.names[0]}: neither this image nor any other of its kind can be decoded")
    return Labeled(tuple(labeled.names[row] for row in kept), labeled.identities[kept])


def _measure(
    session: Session,
    images: NamedImages,
    sizes: Mapping[str, tuple[int, int]],
    strategies: Sequence[Strategy],
    measure: Callable[[_RowsOf], Mapping[str, float | None]],
) -> _Numbers:
    session.note(images, list(sizes))
    numbers = {}
    for embedder in session.embedders:
        selected = embed_selected(embedder, images, sizes, strategies)
        numbers[embedder.model.name] = {
            strategy: measure(partial(selected.of, strategy)) for strategy in selected.places
        }
    return numbers


def _table(title: str, note: str, numbers: _Numbers) -> Section:
    rows = [
        [model, strategy, *map(percent, values.values())]
        for model, by_strategy in numbers.items()
        for strategy, values in by_strategy.items()
    ]
    columns = next(iter(next(iter(numbers.values())).values()))
    return Section(title, ["model", "selection", *columns], rows, note)
