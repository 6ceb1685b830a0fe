"""Measures models at 1:N identification between several resolutions, and writes the result as a report.

The gallery has one embedding a person, the mean of those of its images (`btnet_eval.templates.prototypes`), so that
ranks count people. What the rates mean `btnet_eval.identification` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from btnet_eval.base import DataError, Problems, Rows
from btnet_eval.datasets.images import NamedImages
from btnet_eval.datasets.lists import Labeled
from btnet_eval.datasets.survface import OpenSet
from btnet_eval.embedder import Embedder
from btnet_eval.identification import Identification, identify
from btnet_eval.people import in_folders, person_of
from btnet_eval.plots import resolution_plot
from btnet_eval.report import Section, percent
from btnet_eval.session import Session
from btnet_eval.templates import prototypes

RANKS = (1, 5, 10)
FPIRS = (0.1, 0.01)


def split_gallery(
    names: Sequence[str], problems: Problems, *, gallery_images: int = 3, unmated: float = 1 / 3
) -> OpenSet:
    """Make a gallery and probes of images with a folder for each person (see `btnet_eval.people`): `PERSON/NAME.jpg`.

    People and images are taken in the order of their names. Of n people, floor(n * unmated) are not in the gallery, and
    all of their images are unmated probes; they are spread evenly: with 1/3, every third person. Of each other person,
    the first images are the gallery, and the rest are mated probes.

    Args:
        names: of the images. They should be those that can be decoded (`btnet_eval.session.image_sizes`).
        problems: told of people without an image for a probe, who are in the gallery alone, and of images in no folder,
            which are left out.
        gallery_images: how many images a person has in the gallery, 1 at least.
        unmated: the part of the people who are not in the gallery, at least 0 and below 1.

    Returns:
        Identities are the places of people in the order of all.

    Raises:
        ValueError: numbers out of these ranges.
        DataError: no person has an image for the gallery and one for a probe, or only one is in the gallery.
    """
    if gallery_images < 1:
        raise ValueError(f"gallery_images must be at least 1, not {gallery_images}")
    if not 0 <= unmated < 1:
        raise ValueError(f"unmated must be at least 0 and below 1, not {unmated}")
    people: dict[str, list[str]] = {}
    for name in in_folders(sorted(names), problems):
        people.setdefault(person_of(name), []).append(name)
    # Rounded, since 1/3 and its like are not exact.
    is_unmated = np.diff(np.floor(np.round(np.arange(len(people) + 1) * unmated, 9))) == 1
    gallery, mated, strangers = [], [], []
    for identity, (person, own) in enumerate(sorted(people.items())):
        if is_unmated[identity]:
            strangers += own
            continue
        gallery += [(name, identity) for name in own[:gallery_images]]
        mated += [(name, identity) for name in own[gallery_images:]]
        if len(own) <= gallery_images:
            problems.report(f"{person}: has {len(own)} image{'s' * (len(own) > 1)}, of which none is left for a probe")
    if not mated:
        raise DataError(
            f"of {len(people)} people, nobody has {gallery_images} images for the gallery and one to look for"
        )
    if len({identity for _, identity in gallery}) < 2:
        raise DataError(
            f"of {len(people)} people, one is in the gallery, whom each search finds: there must be two at least"
        )
    return OpenSet(_labeled(gallery), _labeled(mated), tuple(strangers))


class OpenSetEmbeddings:
    """The embeddings of all images of an open set, at several resolutions.

    names: of all images, in some order. rows: of them, (n, D), by resolution.
    """

    def __init__(self, people: OpenSet, names: Sequence[str], rows: Mapping[int, Rows]) -> None:
        places = {name: place for place, name in enumerate(names)}
        self._people, self._rows = people, rows
        self._gallery = [places[name] for name in people.gallery.names]
        self._probes = [places[name] for name in (*people.mated.names, *people.unmated)]

    def search(self, r1: int, r2: int) -> Identification:
        """Search the gallery at resolution r1 for the probes at r2. Raises as `search_prototypes`."""
        return search_prototypes(self._people, self._rows[r1][self._gallery], self._rows[r2][self._probes])


def search_prototypes(people: OpenSet, gallery: Rows, probes: Rows) -> Identification:
    """Search the gallery, one mean embedding a person, for the probes, the mated ones before the unmated.

    gallery, probes: (n, D), in the order of `people`. Raises ValueError as `identification.identify` and `prototypes`.
    """
    means = prototypes(gallery, people.gallery.identities)
    nobody = np.full(len(people.unmated), means.ids.min() - 1)
    return identify(means.rows, means.ids, probes, np.concatenate([people.mated.identities, nobody]))


def embed_open_set(
    embedder: Embedder, people: OpenSet, images: NamedImages, resolutions: Sequence[int]
) -> OpenSetEmbeddings:
    """Embed all images at each resolution. Raises as `Embedder`."""
    # Sorted, as `verify` has them: who measures both on the same images embeds them once.
    names = sorted({*people.gallery.names, *people.mated.names, *people.unmated})
    return OpenSetEmbeddings(people, names, embedder.at(images, names, resolutions))


def rates(found: Identification) -> dict[str, float]:
    """Top-1, 5 and 10, and TPIR at FPIR 0.1 and 0.01 with the mate being the first, 0..1; keys as in the report.

    Without unmated probes there is no TPIR.
    """
    top = {f"Top-{k}": found.top(k) for k in RANKS}
    if not found.unmated_scores.size:
        return top
    return top | {f"TPIR at FPIR {fpir:g}": found.tpir(fpir, 1) for fpir in FPIRS}


def write_identification(session: Session, images: NamedImages, people: OpenSet, resolutions: Sequence[int]) -> Path:
    """Measure, write OUT/identification.json, .md, .html and a figure; return the page's path.

    The gallery is at the highest of the resolutions and probes are at each; and both are at the same resolution.
    Raises ValueError for resolutions that are not positive, or none; what `embed_open_set` and `search` of its result
    raise; and OSError.
    """
    descending = sorted({*resolutions}, reverse=True)
    if not descending or descending[-1] < 1:
        raise ValueError(f"resolutions must be positive, one at least, not {list(resolutions)}")
    pairs = [(descending[0], r) for r in descending] + [(r, r) for r in descending[1:]]
    session.note(images, [*people.gallery.names, *people.mated.names, *people.unmated])
    numbers: dict[str, dict[str, dict[str, float]]] = {}
    for embedder in session.embedders:
        embedded = embed_open_set(embedder, people, images, descending)
        numbers[embedder.model.name] = {f"{r1}&{r2}": rates(embedded.search(r1, r2)) for r1, r2 in pairs}
    sections = [
        replace(counts := counts_section(people), note=f"{counts.note} {_split_in_words(people)}"),
        *_rate_sections(numbers),
        _figure(session, numbers, descending),
    ]
    return session.report("identification", "Identification", numbers, sections)


def counts_section(people: OpenSet) -> Section:
    """How much there is to search, and to look for."""
    note = (
        "A person is the mean embedding of their images in the gallery. Nobody in an unmated probe is in the gallery."
    )
    return Section(
        "Gallery and probes",
        ["people in the gallery", "images in the gallery", "mated probes", "unmated probes"],
        [[len({*people.gallery.identities.tolist()}), len(people.gallery), len(people.mated), len(people.unmated)]],
        note if people.unmated else f"{note} There is no such probe, and therefore no TPIR.",
    )


_Numbers: TypeAlias = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By model, pair of resolutions and rate."""


def _labeled(rows: Sequence[tuple[str, int]]) -> Labeled:
    return Labeled(tuple(name for name, _ in rows), np.array([identity for _, identity in rows], np.int64))


def _split_in_words(people: OpenSet) -> str:
    """Who is in the gallery, as `split_gallery` has it."""
    counts = np.unique(people.gallery.identities, return_counts=True)[1]
    strangers = len({person_of(name) for name in people.unmated})
    everybody = f"Of {len(counts) + strangers:,} people, {strangers:,} are not in the gallery; of the others,"
    sentence = f"{everybody} the first {counts.max()} images are."
    if len(counts) <= max(RANKS):
        sentence += f" Among {len(counts)} people, everybody is in the top {len(counts)}."
    return sentence


def _rate_sections(numbers: _Numbers) -> list[Section]:
    pairs = next(iter(numbers.values()))
    note = "Percent of the mated probes. The resolution of the gallery stands before that of the probes."
    tpir_note = f"{note} The mate has to be the first, at the lowest threshold with no more than that FPIR."
    return [
        Section(
            rate,
            ["model", *pairs],
            [[name, *(percent(found[rate]) for found in values.values())] for name, values in numbers.items()],
            tpir_note if rate.startswith("TPIR") else note,
        )
        for rate in next(iter(pairs.values()))
    ]


def _figure(session: Session, numbers: _Numbers, resolutions: Sequence[int]) -> Section:
    ascending, highest = sorted(resolutions), max(resolutions)
    curves: dict[str, tuple[ArrayLike, ArrayLike, None]] = {}
    for name, values in numbers.items():
        for what, pairs in (
            (f"{highest}&r", [f"{highest}&{r}" for r in ascending]),
            ("r&r", [f"{r}&{r}" for r in ascending]),
        ):
            curves[f"{name}, {what}"] = (ascending, [100 * values[pair]["Top-1"] for pair in pairs], None)
    plot = resolution_plot(curves, value="top-1, %", resolution="resolution of the probes, pixels")
    return Section("Top-1 and resolution", [], [], figure=session.draw("identification_top1", plot))
