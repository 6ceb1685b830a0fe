"""One's own faces: numbers by hand, which images have a part, what is said where there is little data."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import png
from PIL import Image
from sessions import session_in

from btnet_eval.base import DataError, Problems
from btnet_eval.cache import EmbeddingCache
from btnet_eval.datasets.images import open_images
from btnet_eval.embedder import Embedder
from btnet_eval.models import Model, open_model
from btnet_eval.own import (
    ORIGINAL,
    REDUCED,
    Options,
    OwnFaces,
    Step,
    _lowest_far,
    measure_own,
    smallest_size,
    summary,
    write_own,
)
from btnet_eval.people import read_faces
from btnet_eval.recommendations import allows
from btnet_eval.report import read_result
from btnet_eval.roc import Threshold
from btnet_ext import Engine, InvalidOption

SEED = 8
PEOPLE, EACH, SIDE = 9, 4, 24


def checks(images: Sequence[np.ndarray]) -> np.ndarray:
    """Mean colours of 2 x 2 parts, and of a checkerboard of single pixels, which small images lose."""
    rows = []
    for image in images:
        parts = [
            part.mean(axis=(0, 1)) for half in np.array_split(image, 2) for part in np.array_split(half, 2, axis=1)
        ]
        fine = (image[::2, ::2].astype(float) - image[1::2, ::2].mean(axis=(0, 1))).mean(axis=(0, 1))
        rows.append(np.concatenate([*(part - 120 for part in parts), fine, [10]]))
    return np.array(rows, np.float32)


MODEL = Model("checks", checks, "checks", (112,))


def write_faces(folder: Path, counts: Sequence[int], side: int = SIDE) -> Path:
    """A folder for each person p0, p1, ...: images 0.png, 1.png, ..., patterns with much noise."""
    random = np.random.default_rng(SEED)
    for person, count in enumerate(counts):
        pattern = random.integers(0, 256, (2, 2, 3))
        (folder / f"p{person}").mkdir(parents=True)
        for number in range(count):
            noise = np.kron(random.normal(0, 60, (2, 2, 3)), np.ones((side // 2, side // 2, 1)))
            pixels = (
                np.kron(pattern, np.ones((side // 2, side // 2, 1))) + noise + random.normal(0, 40, (side, side, 3))
            )
            (folder / f"p{person}" / f"{number}.png").write_bytes(png(pixels.clip(0, 255).astype(np.uint8)))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("own") / "faces", [EACH] * PEOPLE)


def options_of(**changes: Any) -> Options:
    defaults: dict[str, Any] = {"sizes": (24, 6, 2), "far": 0.01}
    return Options(**(defaults | changes))


def inputs_of(folder: Path, cache: Path, model: Model = MODEL, **changes: Any) -> OwnFaces:
    return OwnFaces(Embedder(model, EmbeddingCache(cache)), open_images(folder), options_of(**changes))


def measured(inputs: OwnFaces) -> tuple[float, dict[str, list[Step]]]:
    return measure_own(inputs, read_faces(inputs.images, Problems()))


def test_rejects_by_hand(tmp_path: Path, folder: Path) -> None:
    """With so few images all pairs are taken, so that the pairs' order and folds do not matter here."""
    far, steps = measured(inputs_of(folder, tmp_path))
    assert far == 0.01
    assert [step.size for step in steps[ORIGINAL]] == [24, 6, 2]
    names = [(person, f"p{person}/{number}.png") for person in range(PEOPLE) for number in range(EACH)]
    original = {name: np.asarray(Image.open(folder / name)) for _, name in names}
    for kind, of_kind in steps.items():
        rates = []
        for step in of_kind:
            scores: dict[bool, list[float]] = {True: [], False: []}
            small = {
                name: checks([np.asarray(Image.fromarray(image).resize((step.size,) * 2, Image.Resampling.BICUBIC))])[0]
                for name, image in original.items()
            }
            full = {name: checks([image])[0] for name, image in original.items()} if kind == ORIGINAL else small
            for (p, a), (q, b) in combinations(names, 2):
                for u, v in ((small[a], full[b]), (small[b], full[a]))[: 2 if kind == ORIGINAL else 1]:
                    u, v = u.astype(np.float64), v.astype(np.float64)
                    scores[p == q].append(float(u @ v / np.sqrt((u @ u) * (v @ v))))
            ranked = sorted(scores[False], reverse=True)
            allowed = int(len(ranked) * 0.01 + 1e-9)
            rejected = np.mean([score <= ranked[allowed] for score in scores[True]])
            assert step.threshold is not None
            assert 1 - step.threshold.tar == pytest.approx(rejected)
            # At 24 px, both directions have the same score: a tie, of which neither is accepted if one must not be.
            assert step.threshold.far == pytest.approx(np.mean(np.array(ranked) > ranked[allowed]))
            assert (step.images, step.genuine, step.impostors) == (36, 54, 576)
            assert step.apart
            rates.append(rejected)
        assert 0 < max(rates) < 1, "a test that tells nothing"
        assert len(set(rates)) > 1


def test_images_that_are_too_small_have_no_part(tmp_path: Path) -> None:
    faces = write_faces(tmp_path / "faces", [3] * 6)
    small = write_faces(tmp_path / "small", [3] * 2, side=12)
    for person in ("p0", "p1"):
        (small / person).rename(faces / f"small {person}")
    wide = np.asarray(Image.open(faces / "p0" / "0.png").resize((40, 11)))
    (faces / "p0" / "0.png").write_bytes(png(wide))
    inputs = inputs_of(faces, tmp_path / "cache", sizes=(24, 12, 11, 25), far=0.01)
    _, steps = measured(inputs)
    assert [(step.size, step.images) for step in steps[REDUCED]] == [(25, 0), (24, 17), (12, 23), (11, 24)]
    assert [(step.size, step.genuine, step.impostors) for step in steps[REDUCED]] == [
        (25, 0, 0),
        (24, 16, 120),
        (12, 22, 231),
        (11, 24, 252),
    ]
    nothing = steps[ORIGINAL][0]
    assert (nothing.accuracy, nothing.std, nothing.threshold) == (None, None, None)
    # At 24 px, an image of that size is the original.
    original, reduced = steps[ORIGINAL][1].threshold, steps[REDUCED][1].threshold
    assert original is not None
    assert reduced is not None
    assert original.value == reduced.value


def test_accuracy_by_hand(tmp_path: Path) -> None:
    """An embedding that names the person is always right; one that says nothing of anybody, for half of the pairs."""
    faces = write_faces(tmp_path / "faces", [3] * 8)
    of_person = {}
    images = open_images(faces)
    for name in images.names():
        of_person[images.read(name).tobytes()] = int(name[1])

    def known(shown: Sequence[np.ndarray]) -> np.ndarray:
        return np.eye(8, dtype=np.float32)[[of_person[image.tobytes()] for image in shown]]

    for model, expected in (
        (Model("known", known, "known", (112,)), 1.0),
        (Model("blind", lambda shown: np.ones((len(shown), 3), np.float32), "blind", (112,)), 0.5),
    ):
        inputs = inputs_of(faces, tmp_path / "cache", model, sizes=(SIDE,))
        _, steps = measured(inputs)
        for of_kind in steps.values():
            assert (of_kind[0].accuracy, of_kind[0].std) == (expected, 0)
            assert of_kind[0].threshold is not None
            assert of_kind[0].threshold.tar == (1 if expected == 1 else 0)


def test_a_far_that_the_data_do_not_allow(tmp_path: Path, folder: Path) -> None:
    """576 impostor pairs: one in five hundred may be accepted, one in a thousand cannot be."""
    page = write_own(session_in(tmp_path, MODEL), open_images(folder), options_of(far=1e-3))
    result = read_result(page.with_suffix(".json"))
    assert result["numbers"]["far"] == 0.002
    said = "too few for the false-accept rate of 0.001 that was asked for: everything is for 0.002, the lowest"
    for text in (summary(result), page.with_suffix(".md").read_text()):
        assert said in text
    enough = write_own(session_in(tmp_path, MODEL), open_images(folder), options_of(far=0.002))
    assert "too few" not in summary(read_result(enough.with_suffix(".json")))


def test_the_lowest_far() -> None:
    for impostors in range(2, 3000):
        far = _lowest_far(impostors)
        assert allows(impostors, far)
        below = next(far * part for part in (0.4, 0.5) if f"{far * part:.0e}"[0] in "125")
        assert not allows(impostors, below * 1.0001)
    assert [_lowest_far(n) for n in (2, 5, 60, 100, 999, 1000)] == [0.5, 0.2, 0.02, 0.01, 0.002, 0.001]


def steps_of(rejects: dict[int, float | None]) -> list[Step]:
    return [
        Step(size, 9, 32, 9, 0.9, 0.1, True, None if part is None else Threshold(0.5, 0.0, 1 - part, 9))
        for size, part in rejects.items()
    ]


def test_the_smallest_size() -> None:
    rejects = {112: None, 56: 0.0, 28: 0.0625, 14: 0.125, 10: 0.03125, 7: 0.9}
    assert smallest_size(steps_of(rejects), 0.0625) == 28, "14 px is too small, so it does not matter that 10 px is not"
    assert smallest_size(steps_of(rejects)[::-1], 0.05) == 56
    assert smallest_size(steps_of(rejects), 1) == 7
    assert smallest_size(steps_of({56: 0.25, 28: 0.0}), 0.125) is None
    assert smallest_size(steps_of({56: None}), 1) is None


@pytest.mark.parametrize("genuine", [20, 100, 1000, 3000])
def test_exactly_the_allowed_part_of_pairs_is_allowed(genuine: int) -> None:
    """Where 1 - 0.95 is more than 0.05."""

    def smallest(rejected: int, allowed: float) -> int | None:
        threshold = Threshold(0.5, 0.0, (genuine - rejected) / genuine, 9)
        return smallest_size([Step(28, 9, genuine, 9, 0.9, 0.1, True, threshold)], allowed)

    for percent in range(5, 100, 5):
        assert smallest(genuine * percent // 100, percent / 100) == 28
        assert smallest(genuine * percent // 100 + 1, percent / 100) is None


def test_report(tmp_path: Path, folder: Path) -> None:
    inputs = inputs_of(folder, tmp_path / "cache", rejects=0.5)
    problems = Problems()
    problems.report("something")
    seen: list[tuple[str, int, int]] = []
    session = session_in(tmp_path, MODEL, problems=problems, progress=lambda *step: seen.append(step))
    page = write_own(session, inputs.images, inputs.options)
    assert page == tmp_path / "out" / "own.html"
    # All images are 24 px, so that they are not embedded again at that size.
    assert {what for what, _, _ in seen} == {
        "reading images",
        "digest of the images",
        *(f"checks at {at}" for at in ("full size", "6 px", "2 px")),
    }
    result = json.loads((tmp_path / "out" / "own.json").read_text())
    _, steps = measured(inputs)
    for kind, of_kind in steps.items():
        for step, numbers in zip(of_kind, result["numbers"]["steps"][kind], strict=True):
            assert Step(**numbers | {"threshold": Threshold(**numbers["threshold"])}) == step
        smallest = result["numbers"]["smallest"][kind]
        assert smallest == smallest_size(of_kind, 0.5)
        (table,) = (section for section in result["sections"] if section["title"] == kind.capitalize())
        for step, row in zip(of_kind, table["rows"], strict=True):
            assert step.accuracy is not None
            assert step.threshold is not None
            assert (row[4], row[8]) == (f"{100 * step.accuracy:.2f}", f"{100 * (1 - step.threshold.tar):.2f}")
    assert inputs.images.where in result["data"]
    for figure in ("own_accuracy", "own_rejects"):
        assert f'src="{figure}.png"' in page.read_text()
        assert (tmp_path / "out" / f"{figure}.svg").stat().st_size > 1000
    text = summary(result)
    first = steps[ORIGINAL][0], steps[REDUCED][0]
    cells = [
        f"{step.accuracy:.1%} {step.threshold.value:.3f} {1 - step.threshold.tar:.1%}"
        for step in first
        if step.threshold is not None
    ]
    assert " ".join(text.splitlines()[2].split()) == f"24 px {' '.join(cells)}"
    assert "9 people with 36 images, and up to 576 pairs of different people; model checks." in text
    for kind in (ORIGINAL, REDUCED):
        smallest = result["numbers"]["smallest"][kind]
        assert smallest is not None, "a test that tells nothing"
        assert (
            f"{kind.capitalize()}, at most 50% of the pairs of one person are rejected at a false-accept rate of 0.01 "
            f"down to {smallest} px." in text
        )
    assert "1 problems with the data" in text
    assert max(map(len, text.splitlines()[:5])) <= 80
    page = write_own(session, inputs.images, options_of(rejects=0.0, sizes=(2,)))
    text = summary(read_result(page.with_suffix(".json")))
    rejected = "more than 0% of the pairs of one person are rejected at a false-accept rate of 0.01"
    assert f"Both reduced, {rejected} already at 2 px." in text


def test_a_real_bundle_selects_the_branches(tmp_path: Path, small_bundle: Path, folder: Path) -> None:
    model = open_model(small_bundle, flip=True)
    inputs = inputs_of(folder, tmp_path, model, sizes=(20, 5), far=0.05)
    _, steps = measured(inputs)
    engine = Engine(small_bundle)
    images = inputs.images
    names = images.names()
    small = [np.asarray(Image.fromarray(images.read(name)).resize((5, 5), Image.Resampling.BICUBIC)) for name in names]
    assert set(engine.select(small)) == {7}
    rows = {
        ORIGINAL: engine.embed([images.read(name) for name in names], flip=True).astype(np.float64),
        REDUCED: engine.embed(small, flip=True).astype(np.float64),
    }
    persons = np.array([name[:2] for name in names])
    upper = np.triu(np.ones((36, 36), bool), 1)
    scores = rows[REDUCED] @ rows[REDUCED].T
    same = persons[:, None] == persons
    ranked = np.sort(scores[upper & ~same])[::-1]
    threshold = steps[REDUCED][1].threshold
    assert threshold is not None
    assert threshold.value == pytest.approx(ranked[int(0.05 * 576)], abs=1e-5)
    both = rows[REDUCED] @ rows[ORIGINAL].T
    ranked = np.sort(both[~same])[::-1]
    against = steps[ORIGINAL][1].threshold
    assert against is not None
    assert against.value == pytest.approx(ranked[int(0.05 * 1152)], abs=1e-5)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    faces = write_faces(tmp_path / "faces", [3, 1, 2])
    (faces / "p2" / "0.png").write_bytes(b"no image")
    (faces / "alone.png").write_bytes((faces / "p0" / "0.png").read_bytes())
    problems = Problems()
    found = read_faces(open_images(faces), problems)
    assert found.names == ("p0/0.png", "p0/1.png", "p0/2.png", "p1/0.png", "p2/1.png")
    assert found.people == ("p0", "p1", "p2")
    assert found.persons.tolist() == [0, 0, 0, 1, 2]
    assert problems.count == 4
    for part, message in zip(
        (
            "alone.png: it is in no folder of a person",
            "p2/0.png is not an image",
            "p1 has one image",
            "p2 has one image",
        ),
        problems.messages,
        strict=True,
    ):
        assert part in message
    with pytest.raises(DataError, match=r"alone\.png: it is in no folder of a person"):
        read_faces(open_images(faces), Problems(strict=True))


def test_few_people_are_said_to_be_in_several_folds(tmp_path: Path) -> None:
    faces = write_faces(tmp_path / "faces", [3, 3])
    page = write_own(session_in(tmp_path, MODEL), open_images(faces), options_of(far=0.2))
    assert "too few people to keep them apart" in summary(read_result(page.with_suffix(".json")))


@pytest.mark.parametrize(
    ("counts", "message"),
    [([4], "two persons or more, but has only p0"), ([1, 1, 1], "nobody has two images"), ([2, 1], None)],
)
def test_too_few_faces(tmp_path: Path, counts: list[int], message: str | None) -> None:
    inputs = inputs_of(write_faces(tmp_path / "faces", counts), tmp_path / "cache", far=0.5)
    if message is None:
        _, steps = measured(inputs)
        assert steps[REDUCED][0].accuracy is None
        assert steps[REDUCED][0].threshold is not None
    else:
        with pytest.raises(DataError, match=message):
            read_faces(inputs.images, Problems())


def test_wrong_folders(tmp_path: Path, folder: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "a.png").write_bytes((folder / "p0" / "0.png").read_bytes())
    with pytest.raises(DataError, match="two persons or more, but has none"):
        read_faces(open_images(flat), Problems())
    large = inputs_of(folder, tmp_path / "cache", sizes=(100, 30))
    with pytest.raises(DataError, match="at none of 100, 30 px are there images enough"):
        measured(large)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": ()}, "sizes must be one or more positive"),
        ({"sizes": (7, 7)}, "sizes must be .*each once"),
        ({"sizes": (0,)}, "sizes must be"),
        ({"far": 0.0}, "far must be above 0 and below 1, not 0.0"),
        ({"rejects": 1.5}, "rejects must be from 0 to 1, not 1.5"),
        ({"pairs": 0}, "pairs must be at least 1"),
        ({"seed": -1}, "seed at least 0"),
    ],
)
def test_wrong_options(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        replace(Options(), **change)
