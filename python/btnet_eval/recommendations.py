"""Recommended thresholds for every pair of sizes: measured on labelled pairs, reported, kept in a bundle.

Images are reduced to each size, and the model has to make do with them: the smaller they are, the more alike strangers
look to it, also among images that go to the same branch.

A threshold at a FAR is recommended only if there are 1 / FAR impostor pairs at least, that is, if the FAR lets one of
them in. That is the least; for a FAR to be known within about 30 %, thirty have to be let in (Doddington et al., The
NIST speaker recognition evaluation, 2000). Between two sizes each pair gives two scores, but these are of the same
images, so that the pairs are counted and not the scores.
"""

import errno
import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from btnet_eval.base import DataError
from btnet_eval.datasets.images import NamedImages
from btnet_eval.embedder import Embedder
from btnet_eval.people import Faces
from btnet_eval.report import Cell, Section
from btnet_eval.roc import Threshold
from btnet_eval.session import Session
from btnet_eval.thresholds import Table, table, table_of_people
from btnet_eval.verification import Pairs
from btnet_eval.verify import PairEmbeddings, distinct_names
from btnet_ext import Bundle, Engine, InvalidOption
from btnet_ext.bundle import MODEL_FILE, model_text
from btnet_ext.compare import ladder, pair_name, pair_names
from btnet_ext.whole_files import whole_directory, whole_file

FARS = (1e-2, 1e-3, 1e-4)

_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Recommendations:
    """What labelled pairs say about one model.

    thresholds: by FAR, and by pair of sizes as `pair_name` writes it. left_out: the FARs that there are too few
    impostor pairs for. impostors: the number of impostor pairs.
    """

    thresholds: Mapping[float, Mapping[str, Threshold]]
    left_out: tuple[float, ...]
    impostors: int


def allows(impostors: int, far: float) -> bool:
    """Tell whether so many impostor pairs are enough for a threshold at this FAR: 1 / far of them."""
    return impostors > 0 and 1 / impostors <= far


@dataclass(frozen=True)
class LabeledPairs:
    """Pairs of images. sizes: in pixels, what the images are reduced to. Raises DataError for pairs of one kind."""

    pairs: Pairs
    images: NamedImages
    sizes: Sequence[int]

    def __post_init__(self) -> None:
        self.pairs.check_kinds()

    @property
    def names(self) -> list[str]:
        """All images of the pairs, each once."""
        return distinct_names(self.pairs)

    @property
    def impostors(self) -> int:
        """How many pairs are of different persons."""
        return int((~self.pairs.same).sum())

    def table(self, embedder: Embedder, fars: Sequence[float]) -> Table:
        """`thresholds.table` of the pairs."""
        at_sizes = embedder.reduced(self.images, self.names, self.sizes)
        rows = PairEmbeddings(self.pairs, self.names, at_sizes)
        return table(rows.first, rows.second, self.pairs.same, fars)


@dataclass(frozen=True)
class LabeledPeople:
    """Images with a folder a person: the images are dealt into two halves, and all of one are compared with all others.

    faces: those of images that can be used. sizes: in pixels, what they are reduced to. So that no image meets itself,
    the images of a person go to the halves in turn.
    """

    faces: Faces
    images: NamedImages
    sizes: Sequence[int]

    @property
    def names(self) -> Sequence[str]:
        """All images, each once."""
        return self.faces.names

    @property
    def impostors(self) -> int:
        """How many pairs are of different persons."""
        first, second = self._halves
        people = len(self.faces.people)
        of_first, of_second = (np.bincount(self.faces.persons[half], minlength=people) for half in (first, second))
        return len(first) * len(second) - int(of_first @ of_second)

    def table(self, embedder: Embedder, fars: Sequence[float]) -> Table:
        """`thresholds.table_of_people` of the halves."""
        rows = embedder.reduced(self.images, self.names, self.sizes)
        persons = self.faces.persons
        first, second = ((persons[half], {size: at[half] for size, at in rows.items()}) for half in self._halves)
        return table_of_people(*first, *second, fars)

    @cached_property
    def _halves(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        seen: Counter[int] = Counter()
        places = np.empty(len(self.names), np.int64)
        for place, person in enumerate(self.faces.persons.tolist()):
            places[place] = seen[person] % 2
            seen[person] += 1
        return np.flatnonzero(places == 0), np.flatnonzero(places == 1)


def recommend_thresholds(
    embedder: Embedder, labeled: LabeledPairs | LabeledPeople, fars: Sequence[float] = FARS
) -> Recommendations:
    """Measure a model between all of the sizes, at all of fars, each above 0 and below 1.

    For a bundle, the sizes are those of `Model.ladder`: `write_thresholds` takes no others. Raises what
    `Embedder` raises, and InvalidOption for other fars.
    """
    if not fars or not all(0 < far < 1 for far in fars):
        raise InvalidOption(f"fars must be one or more numbers above 0 and below 1, not {list(fars)}")
    impostors = labeled.impostors
    allowed = [far for far in fars if allows(impostors, far)]
    found = labeled.table(embedder, allowed)
    thresholds = {
        far: {pair_name(*pair): of_pair[place] for pair, of_pair in found.items()} for place, far in enumerate(allowed)
    }
    return Recommendations(thresholds, tuple(far for far in fars if far not in allowed), impostors)


def write_recommendations(
    session: Session, labeled: LabeledPairs | LabeledPeople, fars: Sequence[float] = FARS
) -> tuple[Path, dict[str, Recommendations]]:
    """Measure all models, write OUT/thresholds.json, .md and .html, a table for each FAR.

    Returns the page's path, and what was found by model. Raises what `recommend_thresholds` raises, and OSError.
    """
    session.note(labeled.images, labeled.names)
    found = {embedder.model.name: recommend_thresholds(embedder, labeled, fars) for embedder in session.embedders}
    numbers = {
        name: {
            "impostors": of_model.impostors,
            "left_out": of_model.left_out,
            "far": {_far_name(far): dict(pairs) for far, pairs in of_model.thresholds.items()},
        }
        for name, of_model in found.items()
    }
    sections = [_section(far, found) for far in fars]
    return session.report("thresholds", "Thresholds", numbers, sections), found


def check_measuring(engine: Engine) -> None:
    """Raise InvalidOption unless thresholds that an engine measures are those for `btnet compare`."""
    if (engine.device, engine.precision) != ("cpu", "f32"):
        raise InvalidOption(
            f"thresholds that are written into a bundle must be measured on the device cpu with precision f32, as "
            f"btnet compare embeds, not on {engine.device} with {engine.precision}"
        )


def write_thresholds(engine: Engine, found: Recommendations, *, flip: bool, out: Path | None = None) -> Path:
    """Write thresholds into a bundle's model.json, whole or not at all, for `btnet compare`; return the bundle's path.

    They take the place of all thresholds that were there; nothing else of model.json changes. FARs that were left out
    are not written, and `btnet compare` refuses them. Two sizes between which hardly anybody is recognised are written
    with the TAR that they have, by which `btnet compare` says "too small to tell" of faces below the threshold.

    The bundle gets another digest, since that is the SHA-256 of model.json. It gives the same embeddings, which
    `EmbeddingCache` finds again, but an engine compiles its networks again, and TensorRT plans are to be built again.
    What was kept under the old digest stays where it is, until somebody deletes it.

    Args:
        engine: of the bundle, that found was measured with: on the CPU, in f32, with the bundle's own selection.
        found: for every two sizes of the engine's `ladder`.
        flip: whether found was measured with flip-summed embeddings.
        out: where a copy of the bundle goes, which gets the thresholds in its place; nothing may be there. None: the
            bundle itself is changed.

    Raises:
        BundleError: the bundle is not there any more, or damaged.
        DataError: there is no threshold to write.
        InvalidOption: found is for other sizes, or was measured on another device or with another precision.
        OSError: from the file system; it says so if the bundle can only be read.
    """
    check_measuring(engine)
    bundle = engine.bundle.path
    if not found.thresholds:
        raise DataError(
            f"there is no threshold to write: {found.impostors} impostor pairs are too few for a FAR of "
            f"{' or '.join(f'{far:g}' for far in found.left_out)}"
        )
    sizes = ladder(engine)
    for far, pairs in found.thresholds.items():
        if pairs.keys() != pair_names(sizes):
            raise InvalidOption(
                f"found must be for every two of the sizes {', '.join(map(str, sizes))} of {bundle}, "
                f"not for {', '.join(sorted(pairs))} at a FAR of {far:g}"
            )
    rows = {
        _far_name(far): {pair: {"cosine": t.value, "tar": t.tar} for pair, t in pairs.items()}
        for far, pairs in found.thresholds.items()
    }
    model = Bundle.open(bundle).metadata | {"thresholds": {"flip": flip, "far": rows}}
    content = model_text(model).encode()
    if out is None:
        _replace(bundle, content)
        return bundle
    _copy(bundle, out, content)
    return out


def _section(far: float, found: Mapping[str, Recommendations]) -> Section:
    title = f"FAR {far:g}"
    impostors = next(iter(found.values())).impostors
    if not allows(impostors, far):
        return Section(
            title, [], [], f"Left out: {impostors:,} impostor pairs are too few, since {_needed(far):,} are needed."
        )
    rows: list[list[Cell]] = [
        [name, pair, threshold.value, threshold.far, threshold.tar, threshold.impostors]
        for name, of_model in found.items()
        for pair, threshold in of_model.thresholds[far].items()
    ]
    return Section(
        title,
        ["model", "sizes", "threshold", "FAR reached", "TAR reached", "impostors"],
        rows,
        f"The least cosine similarity that counts as the same person, from {impostors:,} impostor pairs; between two "
        "sizes, pairs that were given count in both directions. Where the TAR is below 0.5, btnet compare says of "
        "faces below the threshold that they are too small to tell.",
    )


def _needed(far: float) -> int:
    return next(count for count in (math.floor(1 / far), math.floor(1 / far) + 1) if allows(count, far))


def _far_name(far: float) -> str:
    """Such that float() gives the same number."""
    return repr(float(far))


def _replace(bundle: Path, content: bytes) -> None:
    try:
        with whole_file(bundle / MODEL_FILE) as append:
            append(content)
    except OSError as error:
        if error.errno not in _NOT_ALLOWED:
            raise
        why = os.strerror(error.errno)
        raise OSError(
            error.errno, f"{bundle} cannot be changed ({why}): thresholds can be written into a copy, elsewhere"
        ) from error


def _copy(bundle: Path, out: Path, content: bytes) -> None:
    """Copy all files of a bundle but model.json. Copies, not links: who changes one of them does not change both."""
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"{out} exists: it is not overwritten")
    try:
        with whole_directory(out) as folder:
            for file in bundle.iterdir():
                if file.is_file() and file.name != MODEL_FILE and not file.name.startswith("."):
                    shutil.copyfile(file, folder / file.name)
            (folder / MODEL_FILE).write_bytes(content)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        raise OSError(error.errno, f"{out} cannot be written ({why})") from error
