"""1:1 and 1:N measures of templates, as on IJB-B and IJB-C.

1:1 is TAR at FAR of `roc`, exact, of all pairs. arcface_torch's eval_ijbc.py takes the point of the ROC whose FAR is
nearest instead; where there are many impostors for the FAR, both agree.

1:N is measured in both ways that public programs have:

- Galleries together, as insightface's ijb_1n.py and BTNet's eval_ijbc_1n_multi_reso.py: all galleries are one; probes
  of nobody in it do not count. Of q probes, the threshold is the ceil(q * FPIR)-th highest score of all pairs of a
  probe and another person, and "TPIR" is the part of the probes whose mate scores above it, at whatever rank.
- Each gallery, as IJB-C defines it (Maze et al., ICB 2018), and as insightface's ijb_evals.py has it: a probe whose
  mate is in the other gallery is non-mated. TPIR at FPIR is that of `identification` for rank 1, the mean over the
  galleries; top-k is of the mated probes of all galleries. (That program lets one non-mated probe less in.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from btnet_eval.base import DataError
from btnet_eval.datasets.ijbc import Subjects, TemplatePairs
from btnet_eval.identification import identify
from btnet_eval.roc import ScoreTail, compare_all
from btnet_eval.templates import Templates, pair_scores

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
CURVE_FARS = (*(far * 10 ** (step / 10) for far in FARS[:-1] for step in range(10)), FARS[-1])
"""Ten a decade, FARS among them."""
FPIRS = (0.01, 0.1)
RANKS = (1, 5, 10)

_BLOCK = 1 << 20
"""Pairs of templates whose scores are in memory at a time."""


@dataclass(frozen=True)
class Search:
    """1:N search: galleries with one template of each person, nobody in two of them, and templates to search for.

    Raises DataError for no gallery, a person with two templates, and a gallery in which no probe has a mate.
    """

    galleries: Sequence[Subjects]
    probes: Subjects

    def __post_init__(self) -> None:
        if not self.galleries:
            raise DataError("there must be a gallery at least")
        people, counts = np.unique(np.concatenate([part.subjects for part in self.galleries]), return_counts=True)
        if counts.max() > 1:
            raise DataError(f"subject {people[int(np.argmax(counts))]} has several templates in the galleries")
        for number, part in enumerate(self.galleries, start=1):
            if not np.isin(self.probes.subjects, part.subjects).any():
                raise DataError(f"gallery {number} of {len(self.galleries)} has none of the probes' subjects")


@dataclass(frozen=True)
class Identified:
    """What a search reaches, 0..1. tpirs: by FPIR, None where there is nothing to get the threshold from.

    tops: by rank.
    """

    tpirs: dict[float, float | None]
    tops: dict[int, float]


@dataclass(frozen=True)
class Measured:
    """What one model reaches, 0..1.

    tars: by FAR, those of CURVE_FARS. together, each: 1:N with the galleries together, and with each by itself. None
    for what was not measured.
    """

    tars: dict[float, float] | None
    together: Identified | None
    each: Identified | None


def measure(first: Templates, second: Templates, pairs: TemplatePairs | None, search: Search | None) -> Measured:
    """Measure all there is: first has the first templates of the pairs and the galleries, second the others.

    Raises ValueError for pairs of one kind only, and for templates that are not in first or second.
    """
    tars = None
    if pairs is not None:
        tail = compare_pairs(first, second, pairs)
        tars = {far: tail.at_far(far).tar for far in CURVE_FARS}
    if search is None:
        return Measured(tars, None, None)
    return Measured(tars, search_together(first, second, search), search_each(first, second, search))


def mean(a: Measured, b: Measured) -> Measured:
    """The means of two measurements of the same kind; what is None in either is None."""
    tars = None
    if a.tars is not None and b.tars is not None:
        tars = {far: (tar + b.tars[far]) / 2 for far, tar in a.tars.items()}
    return Measured(tars, _mean(a.together, b.together), _mean(a.each, b.each))


def compare_pairs(first: Templates, second: Templates, pairs: TemplatePairs) -> ScoreTail:
    """The scores of all pairs, for TAR at FARs up to the last of FARS.

    In memory is a block of scores at a time, and what `ScoreTail` keeps. Raises ValueError as `measure`.
    """
    tail = ScoreTail(int(np.count_nonzero(~pairs.same)), FARS[-1])
    for start in range(0, len(pairs.same), _BLOCK):
        block = slice(start, start + _BLOCK)
        tail.add(pair_scores(first, pairs.first[block], pairs.second[block], second), pairs.same[block])
    return tail


def search_together(gallery: Templates, probes: Templates, search: Search) -> Identified:
    """1:N with all galleries as one. gallery, probes: where the embeddings of both are. Raises ValueError as `measure`.

    TPIR is None where the gallery has one template.
    """
    subjects = np.concatenate([part.subjects for part in search.galleries])
    rows = gallery.of(np.concatenate([part.templates for part in search.galleries]))
    mated = np.isin(search.probes.subjects, subjects)
    wanted, people = probes.of(search.probes.templates[mated]), search.probes.subjects[mated]
    found = identify(rows, subjects, wanted, people, max_rank=RANKS[-1])
    tops = {rank: found.top(rank) for rank in RANKS}
    impostors = len(people) * (len(subjects) - 1)
    if not impostors:
        return Identified(dict.fromkeys(FPIRS), tops)
    # The score that is the threshold is not accepted itself.
    fars = {fpir: (math.ceil(len(people) * fpir) - 1) / impostors for fpir in FPIRS}
    tail = compare_all(rows, subjects, wanted, people, max_far=max(fars.values()))
    return Identified({fpir: tail.at_far(far).tar for fpir, far in fars.items()}, tops)


def search_each(gallery: Templates, probes: Templates, search: Search) -> Identified:
    """1:N with each gallery by itself. Arguments and errors: as in `search_together`.

    TPIR is None where all probes have their mates in one gallery.
    """
    wanted, people = probes.of(search.probes.templates), search.probes.subjects
    found = [
        identify(gallery.of(part.templates), part.subjects, wanted, people, max_rank=RANKS[-1])
        for part in search.galleries
    ]
    ranks = np.concatenate([of_part.ranks for of_part in found])
    tpirs: dict[float, float | None] = dict.fromkeys(FPIRS)
    if all(of_part.unmated_scores.size for of_part in found):
        tpirs = {fpir: float(np.mean([of_part.tpir(fpir, 1) for of_part in found])) for fpir in FPIRS}
    return Identified(tpirs, {rank: float(np.mean(ranks <= rank)) for rank in RANKS})


def _mean(a: Identified | None, b: Identified | None) -> Identified | None:
    if a is None or b is None:
        return None
    tpirs = {fpir: _mean_of(value, b.tpirs[fpir]) for fpir, value in a.tpirs.items()}
    return Identified(tpirs, {rank: (value + b.tops[rank]) / 2 for rank, value in a.tops.items()})


def _mean_of(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else (a + b) / 2
