"""QMUL-SurvFace 1:1, made by the tests, against counting in NumPy; and beside 1:N in one report."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_files import cells
from scipy.io import savemat
from sessions import session_in
from test_small_faces import MODEL, SEED, SINGLE, result_of, shown_rows, survface, unit, write_people

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import NamedImages
from btnet_eval.datasets.survface import read_verification
from btnet_eval.models import Model
from btnet_eval.selection import Strategy
from btnet_eval.small_faces import SurvFace, write_survface
from btnet_eval.verification import Pairs, accuracy


def survface_pairs(folder: Path) -> tuple[NamedImages, Pairs]:
    """40 pairs of one person and 40 of two, of images of people 1 to 12."""
    random = np.random.default_rng(SEED)
    people = {f"{p}_cam{n}.jpg": p for p in range(1, 13) for n in range(4)}
    names = list(people)
    both = [(a, b) for a in names for b in names if a < b]
    images = write_people(folder / "verification_images", people)
    for kind, same in (("positive", True), ("negative", False)):
        of_kind = [pair for pair in both if (people[pair[0]] == people[pair[1]]) == same]
        chosen = [of_kind[place] for place in random.choice(len(of_kind), 40, replace=False)]
        savemat(folder / f"{kind}_pairs_names.mat", {f"{kind}_pairs_names": cells(chosen)})
    return images, read_verification(folder, images, Problems(strict=True))


def verification_counted(
    images: NamedImages, pairs: Pairs, model: Model, strategy: Strategy | None
) -> dict[str, float]:
    """TAR and AUC by counting; accuracies of ten folds, tenths of the 40 pairs of each kind."""
    first, second = (unit(shown_rows(model, images, paths, strategy)) for paths in (pairs.paths_a, pairs.paths_b))
    scores = np.sum(first * second, axis=1)
    same, different = scores[:40], scores[40:]
    thresholds = np.append(scores, np.inf)
    far, tar = (np.array([np.mean(of_kind >= t) for t in thresholds]) for of_kind in (different, same))
    found = {f"TAR at FAR {rate:g}": tar[far <= rate].max() for rate in (0.3, 0.1, 0.01, 0.001)}
    above = (same[:, None] > different).astype(float) + (same[:, None] == different) / 2
    accuracies = []
    for fold in range(10):
        held_out = np.isin(np.arange(80), [*range(4 * fold, 4 * fold + 4), *range(40 + 4 * fold, 44 + 4 * fold)])
        labels = np.arange(80) < 40
        threshold = accuracy(first, second, labels, held_out.astype(int)).thresholds[1]
        accuracies.append(np.mean((scores[held_out] >= threshold) == labels[held_out]))
        best = max(np.mean((scores[~held_out] >= t) == labels[~held_out]) for t in thresholds)
        assert np.mean((scores[~held_out] >= threshold) == labels[~held_out]) == best
    return found | {"AUC, 1:1": above.mean(), "mean accuracy": np.mean(accuracies)}


def test_survface_pairs(tmp_path: Path) -> None:
    images, pairs = survface_pairs(tmp_path)
    strategies = [Strategy("max", "ceil"), Strategy("min", "floor")]
    page = write_survface(session_in(tmp_path, MODEL, SINGLE), SurvFace(pairs=(images, pairs)), strategies=strategies)
    result = result_of(page)
    for strategy in strategies:
        counted = verification_counted(images, pairs, MODEL, strategy)
        assert result["numbers"]["colours"][str(strategy)] == pytest.approx(counted, abs=1e-12)
    counted = verification_counted(images, pairs, SINGLE, None)
    assert result["numbers"]["single"] == {"one network": pytest.approx(counted, abs=1e-12)}
    assert 0.5 < counted["mean accuracy"] < 1
    assert len(set(counted.values())) > 3
    counts, table = result["sections"]
    assert counts["rows"] == [[40, 40, 10, len({*pairs.paths_a, *pairs.paths_b})]]
    assert table["columns"][2:] == [
        *(f"TAR at FAR {far}" for far in (0.3, 0.1, 0.01, 0.001)),
        "AUC, 1:1",
        "mean accuracy",
    ]
    assert table["rows"][2] == ["single", "one network", *(f"{100 * value:.2f}" for value in counted.values())]


def test_survface_both(tmp_path: Path) -> None:
    """One report with the tables of both; a broken image of a pair takes the pair along."""
    search, (images, pairs) = survface(tmp_path), survface_pairs(tmp_path / "pairs")
    (tmp_path / "pairs" / "verification_images" / pairs.paths_a[0]).write_bytes(b"no image")
    problems = Problems()
    page = write_survface(session_in(tmp_path, SINGLE, problems=problems), SurvFace(search, (images, pairs)))
    result = result_of(page)
    assert list(result["numbers"]["single"]["one network"]) == [
        *(f"TPIR20 at FPIR {fpir}" for fpir in (0.3, 0.2, 0.1, 0.01)),
        "AUC",
        *(f"TAR at FAR {far}" for far in (0.3, 0.1, 0.01, 0.001)),
        "AUC, 1:1",
        "mean accuracy",
    ]
    assert [len(section["columns"]) for section in result["sections"]] == [4, 7, 4, 8]
    assert result["sections"][2]["rows"][0][0] < 40
    assert problems.count == 1
    assert len(result["data"]) == 3


def test_survface_pairs_of_one_kind(tmp_path: Path) -> None:
    def refuse(shown: object) -> np.ndarray:
        raise AssertionError("embedded")

    images, pairs = survface_pairs(tmp_path)
    positive = pairs.take(np.arange(40))
    with pytest.raises(DataError, match=f"{tmp_path}: all 40 pairs are of one person, expected pairs of both kinds"):
        write_survface(session_in(tmp_path, replace(SINGLE, embed=refuse)), SurvFace(pairs=(images, positive)))


def test_survface_with_one_fold(tmp_path: Path) -> None:
    images, pairs = survface_pairs(tmp_path)
    few = pairs.take(np.array([0, 40]))
    page = write_survface(session_in(tmp_path, SINGLE), SurvFace(pairs=(images, few)))
    assert result_of(page)["numbers"]["single"]["one network"]["mean accuracy"] is None
    assert result_of(page)["sections"][1]["rows"][0][-1] is None
    with pytest.raises(DataError, match="neither a gallery nor a list of pairs"):
        write_survface(session_in(tmp_path, SINGLE), SurvFace())
