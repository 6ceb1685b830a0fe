"""Whole measurements of QMUL-SurvFace, TinyFace and SCface made by the tests, against counting in NumPy."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from dataset_files import png, write_labeled
from sessions import session_in

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import NamedImages, open_images
from btnet_eval.datasets.lists import Labeled
from btnet_eval.datasets.scface import METERS, SCface, read_scface
from btnet_eval.datasets.survface import OpenSet, read_identification
from btnet_eval.datasets.tinyface import TinyFace, read_tinyface
from btnet_eval.models import Model, open_model
from btnet_eval.selection import STRATEGIES, Strategy, select
from btnet_eval.small_faces import SurvFace, write_scface, write_survface, write_tinyface
from btnet_ext import Engine, resize

SEED = 23


def colours(images: Sequence[np.ndarray]) -> np.ndarray:
    """Mean colours of the quarters, and of their corners, in which resolutions differ."""
    rows = []
    for image in images:
        y, x = image.shape[0] // 2, image.shape[1] // 2
        quarters = image[:y, :x], image[:y, x:], image[y:, :x], image[y:, x:]
        rows.append([*(quarter.mean(axis=(0, 1)) for quarter in quarters), *(quarter[0, 0] for quarter in quarters)])
    return np.array(rows, np.float32).reshape(len(images), -1) - 127


MODEL = Model("colours", colours, "1", (7, 14, 28))
SINGLE = Model("single", lambda images: colours([resize(image, (20, 20)) for image in images]), "2", (112,))


def write_people(folder: Path, people: Mapping[str, int]) -> NamedImages:
    """An image for each name: of a pattern that is the person's, of an odd size, with noise."""
    random = np.random.default_rng(SEED)
    for name, person in people.items():
        size = tuple(random.integers(5, 34, 2).tolist())
        pattern = np.random.default_rng(person).integers(70, 186, (4, 4, 3), np.uint8)
        pixels = resize(pattern, size) + random.normal(0, 40, (*size, 3))
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels.clip(0, 255).astype(np.uint8)))
    return open_images(folder)


def unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1)[:, None]
    return scaled


def shown_rows(model: Model, images: NamedImages, names: Sequence[str], strategy: Strategy | None) -> np.ndarray:
    """Embeddings in float64; strategy None: of the images as they are."""
    shown = [images.read(name) for name in names]
    if strategy is not None:
        chosen = [int(select([image.shape[:2]], model.resolutions, strategy)[0]) for image in shown]
        shown = [resize(image, (r, r)) for image, r in zip(shown, chosen, strict=True)]
    return np.asarray(model.embed(shown), np.float64)


def result_of(page: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(page.with_suffix(".json").read_text())
    return result


def survface(folder: Path) -> tuple[NamedImages, OpenSet]:
    """30 people in the gallery with 1 to 4 images, 45 mated and 40 unmated probes."""
    gallery = {f"{p}_cam1_{n}.jpg": p for p in range(1, 31) for n in range(1 + p % 4)}
    mated = {f"{p}_cam2_{n}.jpg": p for p in range(1, 31) for n in range(1 + p % 2)}
    unmated = {f"{p}_cam1_1.jpg": p for p in range(31, 71)}
    sets = {"gallery": gallery, "mated_probe": mated, "unmated_probe": unmated}
    named = {f"{kind}/{name}": person for kind, people in sets.items() for name, person in people.items()}
    images = write_people(folder / "Face_Identification_Test_Set", named)
    for kind in ("gallery", "mated_probe"):
        names, ids = {f"{kind}_set": list(sets[kind])}, {f"{kind}_ids": list(sets[kind].values())}
        write_labeled(folder / f"{kind}_img_ID_pairs.mat", names, ids)
    return images, read_identification(folder, images, Problems(strict=True))


def survface_counted(images: NamedImages, people: OpenSet, model: Model, strategy: Strategy | None) -> dict[str, float]:
    """As BTNet's program counts, at all thresholds there are instead of 1,000."""
    rows, ids = shown_rows(model, images, people.gallery.names, strategy), people.gallery.identities
    persons = np.unique(ids)
    gallery = unit(np.stack([rows[ids == person].mean(axis=0) for person in persons]))
    mated = unit(shown_rows(model, images, people.mated.names, strategy)) @ gallery.T
    unmated = (unit(shown_rows(model, images, people.unmated, strategy)) @ gallery.T).max(axis=1)
    first20 = np.argsort(-mated, axis=1)[:, :20]
    correct = persons[first20] == people.mated.identities[:, None]
    scores = np.take_along_axis(mated, first20, axis=1)
    thresholds = np.sort([*unmated, *scores[correct], np.inf])
    fpir = np.array([np.mean(unmated >= t) for t in thresholds])
    tpir = np.array([np.sum(correct & (scores >= t)) / len(mated) for t in thresholds])
    found = {f"TPIR20 at FPIR {rate:g}": tpir[fpir <= rate].max() for rate in (0.3, 0.2, 0.1, 0.01)}
    # From FPIR 1 on, with all that is found at all.
    return found | {"AUC": sklearn.metrics.auc([1, *fpir], [np.sum(correct) / len(mated), *tpir])}


def test_survface(tmp_path: Path) -> None:
    images, people = survface(tmp_path)
    steps: list[str] = []
    page = write_survface(
        session_in(tmp_path, MODEL, SINGLE, progress=lambda what, done, total: steps.append(what)),
        SurvFace((images, people)),
    )
    assert page == tmp_path / "out" / "survface.html"
    assert [*dict.fromkeys(steps)] == ["reading images", "digest of the images", "colours", "single"]
    result = result_of(page)
    numbers = result["numbers"]
    assert list(numbers["colours"]) == [str(strategy) for strategy in STRATEGIES]
    for strategy in STRATEGIES:
        found = numbers["colours"][str(strategy)]
        assert found == pytest.approx(survface_counted(images, people, MODEL, strategy), abs=1e-12)
    assert len({str(found) for found in numbers["colours"].values()}) > 4  # the strategies differ
    assert 0 < numbers["colours"]["max ceil"]["TPIR20 at FPIR 0.1"] < 1
    counted = survface_counted(images, people, SINGLE, None)
    assert numbers["single"] == {"one network": pytest.approx(counted, abs=1e-12)}
    counts, table = result["sections"]
    assert counts["rows"] == [[30, len(people.gallery), 45, 40]]
    assert table["columns"] == ["model", "selection", *(f"TPIR20 at FPIR {t}" for t in (0.3, 0.2, 0.1, 0.01)), "AUC"]
    assert len(table["rows"]) == 10
    assert "AUC: the area under TPIR20 against FPIR" in table["note"]
    values = [f"{100 * value:.2f}" for value in numbers["colours"]["max floor"].values()]
    assert table["rows"][0] == ["colours", "max floor", *values]
    assert table["rows"][9][:2] == ["single", "one network"]
    assert "min near" in page.read_text()


def test_survface_by_hand(tmp_path: Path) -> None:
    """Colours as embeddings. Person 3 is the mean of blue and cyan, (0, 1, 2) / sqrt(5).

    Best scores of strangers, in order: 3 / sqrt(15), 3 / sqrt(10), 0.9965 (all with person 3), 1 / sqrt(2). Mates: 1,
    1, 0.9741, and yellow, which is as near to person 2 as to its own person 1, with 1 / sqrt(2). At FPIR 0.3 one
    stranger is let in, the third, and with it three mates; below no stranger is, and two mates are left. AUC: two mates
    are above all four strangers, one is above three, and yellow ties with one.
    """
    colours_of = {
        "gallery": [(250, 0, 0), (0, 250, 0), (0, 0, 250), (0, 250, 250)],
        "mated_probe": [(250, 0, 0), (0, 250, 0), (0, 60, 250), (250, 250, 0)],
        "unmated_probe": [(250, 250, 250), (0, 250, 250), (0, 100, 250), (250, 250, 0)],
    }
    for kind, pixels in colours_of.items():
        (tmp_path / kind).mkdir()
        for number, colour in enumerate(pixels):
            (tmp_path / kind / f"{number}.jpg").write_bytes(png(np.full((9, 9, 3), colour, np.uint8)))
    names = [f"{number}.jpg" for number in range(4)]
    for kind, ids in (("gallery", [1, 2, 3, 3]), ("mated_probe", [1, 2, 3, 1])):
        write_labeled(tmp_path / f"{kind}_img_ID_pairs.mat", {f"{kind}_set": names}, {f"{kind}_ids": ids})
    images = open_images(tmp_path)
    people = read_identification(tmp_path, images, Problems(strict=True))
    model = Model("rgb", lambda shown: np.array([image.mean(axis=(0, 1)) for image in shown], np.float32), "1", (7, 14))
    page = write_survface(session_in(tmp_path, model), SurvFace((images, people)))
    numbers = result_of(page)["numbers"]["rgb"]
    assert len(numbers) == 9
    for found in numbers.values():
        assert list(found.values()) == [0.75, 0.5, 0.5, 0.5, (1 + 1 + 3 / 4 + 1 / 8) / 4]


def test_survface_without_what_cannot_be_decoded(tmp_path: Path) -> None:
    """Person 4 has one image in the gallery; without it the person's probe is no mated one any more."""
    images, people = survface(tmp_path)
    folder = tmp_path / "Face_Identification_Test_Set"
    for name in ("gallery/4_cam1_0.jpg", "unmated_probe/31_cam1_1.jpg"):
        (folder / name).write_bytes(b"no image")
    problems = Problems()
    page = write_survface(
        session_in(tmp_path, SINGLE, problems=problems),
        SurvFace((images, people)),
        strategies=[Strategy("min", "near")],
    )
    assert [message.split(": ")[-1] for message in problems.messages[2:]] == ["the gallery has no image of identity 4"]
    assert ["is not an image" in message for message in problems.messages] == [True, True, False]
    assert result_of(page)["sections"][0]["rows"] == [[29, len(people.gallery) - 1, 44, 39]]
    assert result_of(page)["problems"]["count"] == 3
    kept = [row for row, person in enumerate(people.gallery.identities) if person != 4]
    probes = [row for row, person in enumerate(people.mated.identities) if person != 4]
    left = OpenSet(
        Labeled(tuple(people.gallery.names[row] for row in kept), people.gallery.identities[kept]),
        Labeled(tuple(people.mated.names[row] for row in probes), people.mated.identities[probes]),
        people.unmated[1:],
    )
    counted = survface_counted(images, left, SINGLE, None)
    assert result_of(page)["numbers"]["single"]["one network"] == pytest.approx(counted, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("gallery", "gallery/1_cam1_0.jpg: neither this image nor any other"),
        ("mated_probe", "mated_probe/1_cam2_0.jpg: neither this image nor any other"),
        ("unmated_probe", "no image of an unmated probe can be decoded"),
    ],
)
def test_survface_with_a_kind_of_broken_images(tmp_path: Path, kind: str, message: str) -> None:
    images, people = survface(tmp_path)
    for file in (tmp_path / "Face_Identification_Test_Set" / kind).iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match=message):
        write_survface(session_in(tmp_path, MODEL, problems=Problems()), SurvFace((images, people)))
    assert not (tmp_path / "out").exists()


def tinyface(folder: Path, distractors: int = 25) -> tuple[NamedImages, TinyFace]:
    """12 people, 1 to 3 images in the gallery and 2 probes each."""
    gallery = {f"{p}_{n}.jpg": p for p in range(1, 13) for n in range(1 + p % 3)}
    probes = {f"{p}_{n}.jpg": p for p in range(1, 13) for n in (8, 9)}
    named = {f"Gallery_Match/{name}": person for name, person in gallery.items()}
    named |= {f"Probe/{name}": person for name, person in probes.items()}
    named |= {f"Gallery_Distractor/{p}.jpg": p for p in range(100, 100 + distractors)}
    write_labeled(
        folder / "gallery_match_img_ID_pairs.mat",
        {"gallery_set": list(gallery)},
        {"gallery_ids": list(gallery.values())},
    )
    write_labeled(folder / "probe_img_ID_pairs.mat", {"probe_set": list(probes)}, {"probe_ids": list(probes.values())})
    images = write_people(folder, named)
    return images, read_tinyface(folder, images, Problems())


def tinyface_counted(
    images: NamedImages, people: TinyFace, model: Model, strategy: Strategy | None
) -> dict[str, float]:
    """As the release's program counts: the first mate's place, and precision against recall by trapezoids."""
    names = [*people.gallery.names, *people.distractors]
    ids = np.array([*people.gallery.identities, *[-100] * len(people.distractors)])
    gallery = unit(shown_rows(model, images, names, strategy))
    probes = unit(shown_rows(model, images, people.probes.names, strategy))
    first, precisions = [], []
    for row, person in zip(probes @ gallery.T, people.probes.identities, strict=True):
        hits = ids[np.argsort(-row)] == person
        first.append(1 + int(np.argmax(hits)))
        found = np.cumsum(hits)
        recall, precision = np.append(0, found / found[-1]), np.append(1, found / np.arange(1, len(hits) + 1))
        precisions.append(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))
    return {f"rank-{k}": np.mean(np.array(first) <= k) for k in (1, 5, 10, 20, 50)} | {"mAP": np.mean(precisions)}


@pytest.mark.parametrize("distractors", [25, 0])
def test_tinyface(tmp_path: Path, distractors: int) -> None:
    images, people = tinyface(tmp_path, distractors)
    strategies = [Strategy("max", "ceil"), Strategy("min", "floor")]
    page = write_tinyface(session_in(tmp_path, MODEL, SINGLE), images, people, strategies=strategies)
    result = result_of(page)
    for strategy in strategies:
        counted = tinyface_counted(images, people, MODEL, strategy)
        assert result["numbers"]["colours"][str(strategy)] == pytest.approx(counted, abs=1e-12)
    counted = tinyface_counted(images, people, SINGLE, None)
    assert result["numbers"]["single"]["one network"] == pytest.approx(counted, abs=1e-12)
    assert result["numbers"]["colours"]["max ceil"]["rank-1"] < result["numbers"]["colours"]["max ceil"]["rank-10"]
    counts, table = result["sections"]
    assert counts["rows"] == [[12, len(people.gallery), distractors, 24]]
    assert table["columns"] == ["model", "selection", "rank-1", "rank-5", "rank-10", "rank-20", "rank-50", "mAP"]
    assert [row[:2] for row in table["rows"]] == [
        ["colours", "max ceil"],
        ["colours", "min floor"],
        ["single", "one network"],
    ]


def test_tinyface_by_default_selects_as_bundles_do(tmp_path: Path) -> None:
    images, people = tinyface(tmp_path)
    page = write_tinyface(session_in(tmp_path, MODEL), images, people)
    assert list(result_of(page)["numbers"]["colours"]) == ["max ceil"]


def scface(folder: Path) -> tuple[NamedImages, SCface]:
    named = {f"{p:03}_frontal.jpg": p for p in range(1, 9)}
    named |= {f"{p:03}_cam{c}_{d}.jpg": p for p in range(1, 9) for c in (1, 2, 3) for d in METERS}
    images = write_people(folder / "faces", named)
    return images, read_scface(images, Problems(strict=True))


def test_scface(tmp_path: Path) -> None:
    images, people = scface(tmp_path)
    (tmp_path / "faces" / "003_cam1_2.jpg").write_bytes(b"no image")
    problems = Problems()
    page = write_scface(session_in(tmp_path, MODEL, problems=problems), images, people)
    result = result_of(page)
    gallery = unit(shown_rows(MODEL, images, people.gallery.names, Strategy("max", "ceil")))
    rates = []
    for probes in people.probes.values():
        kept = [row for row, name in enumerate(probes.names) if name != "003_cam1_2.jpg"]
        names = [probes.names[row] for row in kept]
        found = (unit(shown_rows(MODEL, images, names, Strategy("max", "ceil"))) @ gallery.T).argmax(axis=1)
        rates.append(np.mean(people.gallery.identities[found] == probes.identities[kept]))
    expected = {"4.2 m": rates[0], "2.6 m": rates[1], "1.0 m": rates[2], "mean": np.mean(rates)}
    assert result["numbers"]["colours"]["max ceil"] == pytest.approx(expected, abs=1e-12)
    assert 0 < rates[1] < 1
    counts, table = result["sections"]
    assert counts["rows"] == [[8, 24, 23, 24]]
    assert table["rows"] == [["colours", "max ceil", *(f"{100 * rate:.2f}" for rate in expected.values())]]
    assert problems.count == 1


@pytest.mark.parametrize("strategies", [[], [Strategy("max", "bottom")]])
def test_no_such_strategy(tmp_path: Path, strategies: list[Strategy]) -> None:
    images, people = scface(tmp_path)
    with pytest.raises(ValueError, match=r"strategies must be one at least|the strategy must be of"):
        write_scface(session_in(tmp_path, MODEL), images, people, strategies=strategies)


def test_a_bundle(tmp_path: Path, small_bundle: Path) -> None:
    """Each strategy gives what an engine with this selection gives for the images as they are."""
    images, people = survface(tmp_path)
    model = open_model(small_bundle, flip=False)
    strategies = [Strategy("max", "ceil"), Strategy("min", "floor"), Strategy("avg", "near")]
    page = write_survface(session_in(tmp_path, model), SurvFace((images, people)), strategies=strategies)
    for strategy in strategies:
        engine = Engine(small_bundle, indicator=strategy.indicator, rounding=strategy.rounding)
        native = Model("engine", engine.embed, "3", engine.resolutions)
        counted = survface_counted(images, people, native, None)
        assert result_of(page)["numbers"]["small"][str(strategy)] == pytest.approx(counted, abs=1e-12)
