"""Measures models on templates at several resolutions, as on IJB-B and IJB-C, and writes the result as a report.

Originals and mirror images of all faces are embedded apart. A template is the mean of each medium, then of its media
(`templates.aggregate`), of originals and mirror images added up. Two resolutions r1 and r2 meet in two ways:

- `r1&r2`: in every template, originals at r1 and mirror images at r2. So BTNet's table for IJB-C has it (its README:
  "multi-resolution feature aggregation, template <img1, img2>"; eval_ijbc_11_multi_reso.py and ..._1n_...).
- `r1 vs r2`: templates of r1 against templates of r2, the mean of both directions.

What is measured, `template_measures` says.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from btnet_eval.base import DataError, Image, Problems, Rows
from btnet_eval.cache import Images
from btnet_eval.datasets.align import align
from btnet_eval.datasets.ijbc import Faces, TemplatePairs
from btnet_eval.datasets.images import NamedImages
from btnet_eval.embedder import Embedder, Progress, labelled
from btnet_eval.models import Model
from btnet_eval.plots import roc_plot
from btnet_eval.report import Section, percent
from btnet_eval.session import Session, image_sizes
from btnet_eval.template_measures import FARS, FPIRS, RANKS, Identified, Measured, Search, mean, measure
from btnet_eval.templates import Templates, aggregate


@dataclass(frozen=True)
class Aggregation:
    """How faces make a template; the defaults are those of BTNet's programs for IJB-C, 1:1 and 1:N.

    detector_score: faces count by the score of the detector (use_detector_score). norm_score: longer embeddings count
    more (use_norm_score; insightface's programs have it on, too), for models whose embeddings have lengths. flip: those
    of mirror images are added (use_flip_test); without them, there is no r1&r2 but where both are the same.
    """

    detector_score: bool = True
    norm_score: bool = False
    flip: bool = True


@dataclass(frozen=True)
class TemplateData:
    """What models are measured on. pairs, search: None for what is not to be measured."""

    faces: Faces
    images: NamedImages
    pairs: TemplatePairs | None
    search: Search | None


class TemplateEmbeddings:
    """The embeddings of all faces by one model.

    originals, mirrored: (n, D) by resolution; mirrored is not used without flip.
    """

    def __init__(
        self, faces: Faces, aggregation: Aggregation, originals: Mapping[int, Rows], mirrored: Mapping[int, Rows]
    ) -> None:
        self._faces, self._aggregation = faces, aggregation
        self.originals, self.mirrored = originals, mirrored

    def templates(self, r1: int, r2: int) -> Templates:
        """All templates, of originals at r1 and mirror images at r2. Raises ValueError as `aggregate`."""
        faces, how = self._faces, self._aggregation
        return aggregate(
            self.originals[r1],
            faces.media,
            faces.templates,
            faces.scores if how.detector_score else None,
            mirrored=self.mirrored[r2] if how.flip else None,
            keep_lengths=how.norm_score,
        )


def usable_faces(faces: Faces, images: NamedImages, problems: Problems, progress: Progress | None = None) -> Faces:
    """Leave out faces that cannot be decoded or aligned. Raises DataError if none remains.

    Read pairs and subjects after this, with the templates that still have faces.
    """
    decoded = image_sizes(faces.names, images, problems, progress)
    usable = np.array([name in decoded for name in faces.names])
    if faces.points is not None:
        flat = usable & (faces.points == faces.points[:, :1]).all(axis=(1, 2))
        for row in np.flatnonzero(flat):
            problems.report(f"{faces.names[row]}: its landmarks are five times the same point")
        usable &= ~flat
    if usable.all():
        return faces
    kept = np.flatnonzero(usable)
    if not kept.size:
        raise DataError(f"{images.where}: no face can be decoded and aligned")
    points, scores = (None if values is None else values[kept] for values in (faces.points, faces.scores))
    return Faces(tuple(faces.names[row] for row in kept), faces.templates[kept], faces.media[kept], points, scores)


def embed_faces(
    embedder: Embedder, data: TemplateData, resolutions: Sequence[int], aggregation: Aggregation
) -> TemplateEmbeddings:
    """Embed all faces at each resolution, loose crops after alignment. Raises as `Embedder`."""
    faces = data.faces
    digest = data.images.digest(faces.names)
    if faces.points is not None:
        digest = hashlib.sha256(f"aligned {digest} ".encode() + faces.points.astype("<f8").tobytes()).hexdigest()

    def read(index: int) -> Image:
        return _face(data, index)

    def read_mirrored(index: int) -> Image:
        return np.ascontiguousarray(_face(data, index)[:, ::-1])

    def rows(what: str, images_digest: str, read_one: Callable[[int], Image]) -> dict[int, Rows]:
        task = Images(images_digest, faces.names, read_one)
        return {r: embedder.rows(task, r, what=f" at {r} px{what}") for r in resolutions}

    originals = rows("", digest, read)
    mirrored = rows(", mirrored", f"mirrored {digest}", read_mirrored) if aggregation.flip else {}
    return TemplateEmbeddings(faces, aggregation, originals, mirrored)


def write_templates(session: Session, data: TemplateData, resolutions: Sequence[int], aggregation: Aggregation) -> Path:
    """Measure every setting, write OUT/templates.json, .md, .html and the ROC; return the page's path.

    The models are to be opened without flip, since mirror images are embedded apart. With the raw embeddings of a
    network, all is as in the public programs; with embeddings of length one, an original and its mirror image count the
    same.

    Raises DataError for what does not fit together, before all is embedded; what `embed_faces` and `measure` raise, and
    OSError.
    """
    _check(data, aggregation)
    descending = sorted(set(resolutions), reverse=True)
    if aggregation.norm_score:
        _check_lengths(session.models, data, descending[0])
    session.note(data.images, data.faces.names)
    measured = {}
    for embedder in session.embedders:
        embedded = embed_faces(embedder, data, descending, aggregation)
        report = labelled(session.progress, f"{embedder.model.name}, settings measured")
        measured[embedder.model.name] = _measure_settings(embedded, data, descending, aggregation.flip, report)
    sections = [_data_section(data, aggregation)]
    if data.pairs is not None:
        sections += [_tar_section(measured), _roc_section(session, measured, descending)]
    if data.search is not None:
        sections += _search_sections(measured)
    numbers = {"counts": _counts(data), "aggregation": aggregation, "measured": measured}
    return session.report("templates", "Templates", numbers, sections)


def _face(data: TemplateData, index: int) -> Image:
    image = data.images.read(data.faces.names[index])
    return image if data.faces.points is None else align(image, data.faces.points[index])


def _check(data: TemplateData, aggregation: Aggregation) -> None:
    faces, pairs, search = data.faces, data.pairs, data.search
    if pairs is None and search is None:
        raise DataError("there are neither pairs of templates nor a search to be measured")
    if aggregation.detector_score:
        if faces.scores is None:
            raise DataError("the faces have no scores of a detector: read them with landmarks, or turn them off")
        if faces.scores.min() < 0:
            name = faces.names[int(np.argmin(faces.scores))]
            raise DataError(f"{name}: the score of the detector is {faces.scores.min():g}, below zero")
    wanted: list[NDArray[np.signedinteger]] = []
    if pairs is not None:
        if pairs.same.all() or not pairs.same.any():
            raise DataError("pairs of templates of both kinds are needed, of one person and of two")
        wanted += [pairs.first, pairs.second]
    if search is not None:
        wanted += [part.templates for part in (*search.galleries, search.probes)]
    for ids in wanted:
        lost = ids[~np.isin(ids, faces.templates)]
        if lost.size:
            raise DataError(f"template {lost[0]} has no face")


def _check_lengths(models: Sequence[Model], data: TemplateData, resolution: int) -> None:
    for model in models:
        shown = model.present(_face(data, 0), resolution)
        if math.isclose(float(np.linalg.norm(model.embed([shown]))), 1, rel_tol=1e-4):
            raise DataError(f"{model.name} gives embeddings of length one, which say nothing for norm_score")


_Measured: TypeAlias = Mapping[str, Mapping[str, Measured]]


def _measure_settings(
    embedded: TemplateEmbeddings,
    data: TemplateData,
    resolutions: Sequence[int],
    flip: bool,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Measured]:
    within = [(r1, r2) for r1, r2 in combinations_with_replacement(resolutions, 2) if flip or r1 == r2]
    between = list(combinations(resolutions, 2))
    templates, found = {}, {}
    for r1, r2 in within:
        both = embedded.templates(r1, r2)
        if r1 == r2:
            templates[r1] = both
        found[f"{r1}&{r2}"] = measure(both, both, data.pairs, data.search)
        if progress is not None:
            progress(len(found), len(within) + len(between))
    for r1, r2 in between:
        forward, backward = (
            measure(templates[a], templates[b], data.pairs, data.search) for a, b in ((r1, r2), (r2, r1))
        )
        found[f"{r1} vs {r2}"] = mean(forward, backward)
        if progress is not None:
            progress(len(found), len(within) + len(between))
    return found


def _counts(data: TemplateData) -> dict[str, int | list[int]]:
    counts: dict[str, int | list[int]] = {
        "faces": len(data.faces.names),
        "templates": len(np.unique(data.faces.templates)),
    }
    if data.pairs is not None:
        counts["genuine pairs"] = int(np.count_nonzero(data.pairs.same))
        counts["impostor pairs"] = int(np.count_nonzero(~data.pairs.same))
    if data.search is not None:
        subjects = [part.subjects for part in data.search.galleries]
        counts["galleries"] = [len(part) for part in subjects]
        counts["probes"] = len(data.search.probes.templates)
        counts["mated probes"] = [int(np.isin(data.search.probes.subjects, part).sum()) for part in subjects]
    return counts


def _data_section(data: TemplateData, how: Aggregation) -> Section:
    counts = [[what, ", ".join(f"{n:,}" for n in np.atleast_1d(count))] for what, count in _counts(data).items()]
    used = {"detector's scores": how.detector_score, "lengths of embeddings": how.norm_score, "flips": how.flip}
    note = (
        "r1&r2: in every template, originals at r1 and their mirror images at r2. r1 vs r2: templates of r1 against "
        "templates of r2, the mean of both directions."
    )
    rows = [*counts, ["used", ", ".join(what for what, on in used.items() if on) or "nothing but the embeddings"]]
    return Section("Data", ["what", "how many"], rows, note)


def _tar_section(measured: _Measured) -> Section:
    rows = [
        [name, setting, *(percent(value.tars[far]) for far in FARS)]
        for name, of_model in measured.items()
        for setting, value in of_model.items()
        if value.tars is not None
    ]
    note = "Percent. With fewer impostor pairs than 1 / FAR, none is accepted."
    return Section("1:1, TAR at FAR", ["model", "resolutions", *(f"{far:g}" for far in FARS)], rows, note)


def _roc_section(session: Session, measured: _Measured, resolutions: Sequence[int]) -> Section:
    curves = {}
    for name, of_model in measured.items():
        for setting in (f"{r}&{r}" for r in reversed(resolutions)):
            tars = of_model[setting].tars
            if tars is not None:
                curves[f"{name}, {setting}"] = (list(tars), list(tars.values()))
    figure = session.draw("templates_roc", roc_plot(curves))
    return Section("ROC", [], [], f"Ten FARs a decade, up to {FARS[-1]}.", figure)


def _search_sections(measured: _Measured) -> list[Section]:
    together = (
        "All galleries are one. The threshold comes from the scores of all pairs with another person, and the mate "
        "may have any rank: as insightface's ijb_1n.py and BTNet's program count."
    )
    each = (
        "A probe whose mate is in another gallery is non-mated. TPIR, of rank 1, is the mean over the galleries: "
        "as IJB-C defines it."
    )
    return [
        _search_section("galleries together", together, measured, lambda value: value.together),
        _search_section("each gallery", each, measured, lambda value: value.each),
    ]


def _search_section(
    title: str, note: str, measured: _Measured, get: Callable[[Measured], Identified | None]
) -> Section:
    rows = []
    for name, of_model in measured.items():
        for setting, value in of_model.items():
            found = get(value)
            if found is not None:
                rows.append([name, setting, *map(percent, (*found.tpirs.values(), *found.tops.values()))])
    columns = [*(f"TPIR at FPIR {fpir:g}" for fpir in FPIRS), *(f"top-{rank}" for rank in RANKS)]
    return Section(f"1:N, {title}", ["model", "resolutions", *columns], rows, f"Percent. {note}")
