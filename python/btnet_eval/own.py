"""One's own faces, in a folder a person: how small may they be before they are no longer recognised?

Every image is reduced to each size of a ladder, and embedded as an image of that size is: a bundle selects a branch for
it, a model of one network has it resized to 112 px. It is compared with originals, as a camera's image is with a
photograph that was taken for that, and with other reduced images. Images are taken as aligned square crops; others are
made square.

An image that is smaller than a size has no part in what is measured there: it would have to be enlarged. The pairs are
those of `own_pairs`, made anew for each size of the images that have a part.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btnet_eval.base import DataError, Rows
from btnet_eval.datasets.images import NamedImages
from btnet_eval.embedder import Embedder, in_order
from btnet_eval.own_pairs import OwnPairs, make_pairs
from btnet_eval.people import Faces, read_faces
from btnet_eval.plots import resolution_plot
from btnet_eval.recommendations import allows
from btnet_eval.report import Result, Section, percent
from btnet_eval.session import Session
from btnet_eval.thresholds import Threshold, recommend
from btnet_eval.verification import accuracy, cosine_similarities
from btnet_ext import InvalidOption

SIZES = (112, 80, 56, 40, 28, 20, 14, 10, 7)

ORIGINAL, REDUCED = "against an original", "both reduced"


@dataclass(frozen=True)
class Options:
    """How faces are measured.

    sizes: in pixels, each once. far: false-accept rate of the thresholds. rejects: the part of genuine pairs that may
    be rejected. pairs: at most, of each kind. seed: of the pairs. Raises InvalidOption that names the option.
    """

    sizes: Sequence[int] = SIZES
    far: float = 1e-3
    rejects: float = 0.05
    pairs: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1 or len(set(self.sizes)) < len(self.sizes):
            raise InvalidOption(f"sizes must be one or more positive numbers of pixels, each once, not {self.sizes}")
        if not 0 < self.far < 1:
            raise InvalidOption(f"far must be above 0 and below 1, not {self.far}")
        if not 0 <= self.rejects <= 1:
            raise InvalidOption(f"rejects must be from 0 to 1, not {self.rejects}")
        if self.pairs < 1 or self.seed < 0:
            raise InvalidOption(f"pairs must be at least 1 and seed at least 0, not {self.pairs} and {self.seed}")


@dataclass(frozen=True)
class OwnFaces:
    """What is measured. images: named PERSON/FILE, as `open_images` names them in a folder a person."""

    embedder: Embedder
    images: NamedImages
    options: Options = Options()


@dataclass(frozen=True)
class Step:
    """What the model reaches at one size.

    images, genuine, impostors: how many have a part. accuracy, std: mean and deviation over the folds, 0..1. apart:
    whether nobody is in two folds. threshold: at the FAR of the run. None: there are too few pairs for it.
    """

    size: int
    images: int
    genuine: int
    impostors: int
    accuracy: float | None
    std: float | None
    apart: bool
    threshold: Threshold | None


def measure_own(inputs: OwnFaces, faces: Faces) -> tuple[float, dict[str, list[Step]]]:
    """Measure all sizes, from the largest down, against originals and with both images reduced.

    Returns the FAR of the thresholds and the steps by `ORIGINAL` and `REDUCED`. The FAR is that of the options if there
    are impostor pairs enough for it at any size (see `recommendations.allows`), otherwise the lowest of 0.5, 0.2, 0.1,
    0.05 and so on that they are enough for. Raises as `Embedder`, and DataError if nothing can be measured.
    """
    ladder = _Ladder(inputs, faces)
    sizes = sorted(inputs.options.sizes, reverse=True)
    pairs = {size: ladder.pairs(size) for size in sizes}
    impostors = max(int((~of_size.same).sum()) for of_size in pairs.values())
    if impostors < 2:
        raise DataError(
            f"{inputs.images.where}: at none of {', '.join(map(str, sizes))} px are there images enough for a pair of "
            "one person and two pairs of different ones"
        )
    far = inputs.options.far if allows(impostors, inputs.options.far) else _lowest_far(impostors)
    steps: dict[str, list[Step]] = {ORIGINAL: [], REDUCED: []}
    for size in sizes:
        chosen, of_size = ladder.chosen(size), pairs[size]
        if not len(of_size.same):
            for of_kind in steps.values():
                of_kind.append(Step(size, len(chosen), 0, 0, None, None, of_size.apart, None))
            continue
        original, reduced = ladder.originals[chosen], ladder.reduced(size)
        a, b = of_size.first, of_size.second
        directions = {
            ORIGINAL: [(reduced[a], original[b]), (reduced[b], original[a])],
            REDUCED: [(reduced[a], reduced[b])],
        }
        for kind, sides in directions.items():
            steps[kind].append(_step(size, len(chosen), of_size, sides, far))
    return far, steps


class _Ladder:
    """Embeddings and pairs of the images that have a part at each size."""

    def __init__(self, inputs: OwnFaces, faces: Faces) -> None:
        self._inputs, self._faces = inputs, faces

    @cached_property
    def originals(self) -> Rows:
        """(n, D), of all images as they are."""
        images = in_order(self._inputs.images, self._faces.names)
        return self._inputs.embedder.rows(images, what=" at full size")

    def chosen(self, size: int) -> NDArray[np.intp]:
        """The images that are not smaller."""
        return np.flatnonzero(self._faces.sides.min(axis=1) >= size)

    def pairs(self, size: int) -> OwnPairs:
        """Pairs of chosen(size), by place in it; none where no genuine or no impostor pair can be."""
        options, persons = self._inputs.options, self._faces.persons[self.chosen(size)]
        counts = np.bincount(persons)
        if np.count_nonzero(counts) < 2 or counts.max() < 2:
            nothing = np.empty(0, np.int64)
            return OwnPairs(nothing, nothing, nothing.astype(np.bool_), nothing, apart=True)
        return make_pairs(persons, limit=options.pairs, seed=options.seed)

    def reduced(self, size: int) -> Rows:
        """(len(chosen), D), of the chosen images at that size."""
        chosen = self.chosen(size)
        if (self._faces.sides[chosen] == size).all():
            rows: Rows = self.originals[chosen]
            return rows
        names = [self._faces.names[place] for place in chosen]
        return self._inputs.embedder.reduced(self._inputs.images, names, [size])[size]


def _step(size: int, images: int, pairs: OwnPairs, directions: Sequence[tuple[Rows, Rows]], far: float) -> Step:
    """Measure pairs of embeddings; where there are two directions, the threshold is for the scores of both."""
    impostors = int((~pairs.same).sum())
    mean = std = threshold = None
    inside = pairs.folds >= 0
    if len(np.unique(pairs.folds[inside])) > 1:
        same, folds = pairs.same[inside], pairs.folds[inside]
        found = np.array([accuracy(a[inside], b[inside], same, folds).folds for a, b in directions]).mean(axis=0)
        mean, std = float(found.mean()), float(found.std())
    if allows(impostors, far):
        scores = np.concatenate([cosine_similarities(a, b) for a, b in directions])
        threshold = recommend(scores, np.tile(pairs.same, len(directions)), far)
    return Step(size, images, len(pairs.same) - impostors, impostors, mean, std, pairs.apart, threshold)


def _lowest_far(impostors: int) -> float:
    """The lowest of 0.5, 0.2, 0.1, 0.05, ... that so many impostor pairs, two at least, are enough for."""
    digits = math.ceil(math.log10(impostors))
    rates = (float(f"{digit}e-{place}") for place in (digits, digits - 1) for digit in (1, 2, 5))
    return next(rate for rate in rates if allows(impostors, rate))


def smallest_size(steps: Sequence[Step], rejects: float) -> int | None:
    """The smallest size at which no more than this part of genuine pairs is rejected, there and at all larger sizes.

    Sizes without a threshold are passed over. None if it is more at the largest one already.
    """
    smallest = None
    for step in sorted(steps, key=lambda step: step.size, reverse=True):
        if step.threshold is None:
            continue
        scores = 2 * step.genuine  # or half of that, if there is one direction
        if round((1 - step.threshold.tar) * scores) / scores > rejects:
            break
        smallest = step.size
    return smallest


def write_own(session: Session, images: NamedImages, options: Options = Options()) -> Path:
    """Measure one's own faces, write OUT/own.json, .md, .html and figures; return the page's path.

    Raises InvalidOption for a session of several models, what `read_faces` and `measure_own` raise, and OSError.
    """
    if len(session.models) > 1:
        raise InvalidOption(f"model must be one, not {', '.join(model.name for model in session.models)}")
    inputs = OwnFaces(session.embedders[0], images, options)
    faces = read_faces(images, session.problems, session.progress)
    session.note(images, faces.names)
    far, steps = measure_own(inputs, faces)
    numbers = {
        "folder": inputs.images.where,
        "model": inputs.embedder.model.name,
        "people": len(faces.people),
        "images": len(faces.names),
        "options": asdict(options),
        "far": far,
        "steps": {kind: [asdict(step) for step in of_kind] for kind, of_kind in steps.items()},
        "smallest": {kind: smallest_size(of_kind, options.rejects) for kind, of_kind in steps.items()},
    }
    sections = [
        Section("In short", [], [], " ".join(_sentences(numbers))),
        *(_section(kind, of_kind) for kind, of_kind in steps.items()),
        *_figures(session, steps, options, far),
    ]
    return session.report("own", "Own faces", numbers, sections)


def summary(result: Result) -> str:
    """What `write_own` found, for a terminal; result: its JSON, by `read_result`."""
    numbers = result["numbers"]
    header = "".join(f"{name:<12}" for name in ("accuracy", "threshold", "rejected"))
    lines = [f"{'':<10}{ORIGINAL:<36}{REDUCED}", f"{'size':<10}{header}{header}".rstrip()]
    for original, reduced in zip(*(numbers["steps"][kind] for kind in (ORIGINAL, REDUCED)), strict=True):
        lines.append(f"{original['size']:>5} px  {_columns(original)}{_columns(reduced)}".rstrip())
    left_out = result["problems"]["count"]
    more = [f"{left_out:,} problems with the data are listed in the report."] if left_out else []
    return "\n".join([*lines, "", *_sentences(numbers), *more])


def _columns(step: Mapping[str, Any]) -> str:
    threshold = step["threshold"]
    cells = [
        "n/a" if step["accuracy"] is None else f"{step['accuracy']:.1%}",
        "n/a" if threshold is None else f"{threshold['value']:.3f}",
        "n/a" if threshold is None else f"{1 - threshold['tar']:.1%}",
    ]
    return "".join(f"{cell:<12}" for cell in cells)


def _sentences(numbers: Mapping[str, Any]) -> list[str]:
    """What the numbers, as `write_own` has them, come to."""
    far, options, steps = numbers["far"], numbers["options"], numbers["steps"]
    pairs = max(step["impostors"] for step in steps[REDUCED])
    found = [
        f"{numbers['people']:,} people with {numbers['images']:,} images, and up to {pairs:,} pairs of different "
        f"people; model {numbers['model']}."
    ]
    if far != options["far"]:
        found.append(
            f"These pairs are too few for the false-accept rate of {options['far']:g} that was asked for: everything "
            f"is for {far:g}, the lowest that they allow."
        )
    for kind, smallest in numbers["smallest"].items():
        measured = [step["size"] for step in steps[kind] if step["threshold"] is not None]
        limit = (
            f"{100 * options['rejects']:g}% of the pairs of one person are rejected at a false-accept rate of {far:g}"
        )
        if smallest is not None:
            found.append(f"{kind.capitalize()}, at most {limit} down to {smallest} px.")
        elif measured:
            found.append(f"{kind.capitalize()}, more than {limit} already at {max(measured)} px.")
    if not all(step["apart"] for step in steps[REDUCED]):
        found.append(
            "At some sizes there are too few people to keep them apart: the accuracy there is that of people for whom "
            "the threshold was chosen, too."
        )
    return found


def _section(kind: str, steps: Sequence[Step]) -> Section:
    columns = ["size, px", "images", "genuine pairs", "impostor pairs", "accuracy, %", "deviation"]
    rows = [
        [
            step.size,
            step.images,
            step.genuine,
            step.impostors,
            percent(step.accuracy),
            percent(step.std),
            *((None,) * 3 if (at := step.threshold) is None else (at.value, at.far, percent(1 - at.tar))),
        ]
        for step in steps
    ]
    return Section(
        kind.capitalize(),
        [*columns, "threshold", "FAR reached", "false rejects, %"],
        rows,
        "Images that are smaller than a size have no part there. Accuracy is the mean over the folds, with as many "
        "impostor pairs as genuine ones. n/a: there are too few pairs.",
    )


def _figures(session: Session, steps: Mapping[str, Sequence[Step]], options: Options, far: float) -> list[Section]:
    accuracies, rejects, thresholds = {}, {}, {}
    for kind, of_kind in steps.items():
        ascending = sorted(of_kind, key=lambda step: step.size)
        folds = [
            (s.size, 100 * s.accuracy, 100 * s.std) for s in ascending if s.accuracy is not None and s.std is not None
        ]
        if folds:
            sizes, means, deviations = zip(*folds, strict=True)
            accuracies[kind] = (sizes, means, deviations)
        chosen = [(s.size, s.threshold) for s in ascending if s.threshold is not None]
        if chosen:
            sizes, of_sizes = zip(*chosen, strict=True)
            rejects[kind] = (sizes, [100 * (1 - threshold.tar) for threshold in of_sizes], None)
            thresholds[kind] = (sizes, [threshold.value for threshold in of_sizes], None)
    at_far = f"at a false-accept rate of {far:g}"
    plot = partial(resolution_plot, resolution="size, pixels")
    drawn = []
    if accuracies:
        drawn.append(("own_accuracy", "Accuracy and size", plot(accuracies, value="accuracy, %", highest=100)))
    if rejects:
        allowed = 100 * options.rejects
        title = f"False rejects {at_far}; the dotted line is what may be rejected"
        drawn.append(("own_rejects", title, plot(rejects, value="false rejects, %", highest=100, limit=allowed)))
        drawn.append(("own_threshold", f"Threshold {at_far}", plot(thresholds, value="cosine similarity")))
    return [Section(title, [], [], figure=session.draw(name, figure)) for name, title, figure in drawn]
