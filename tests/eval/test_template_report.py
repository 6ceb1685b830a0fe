"""A whole measurement of templates out of files, of stand-in models, against the steps of the public programs.

Faces are loose crops with landmarks: aligned, they are squares of 112 px with a person's pattern of colours.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import png
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from public_programs import search_in_all, search_in_one, tar_at_nearest_far, template_features
from sessions import session_in

from btnet_eval import template_report
from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.align import align
from btnet_eval.datasets.ijbc import Faces, Subjects, TemplatePairs, read_faces, read_subjects, read_template_pairs
from btnet_eval.datasets.images import open_images
from btnet_eval.models import Model
from btnet_eval.plots import roc_plot
from btnet_eval.template_measures import FARS, FPIRS, RANKS, Search
from btnet_eval.template_report import Aggregation, TemplateData, TemplateEmbeddings, usable_faces, write_templates
from btnet_ext import degrade, resize

SEED = 8
PEOPLE, TEMPLATES, FACES = 8, 4, 3
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def colours(images: Sequence[np.ndarray]) -> np.ndarray:
    """Mean colours of the quarters of an image, not symmetric; embeddings of all lengths."""
    rows = [
        [
            image[y : y + len(image) // 2, x : x + len(image) // 2].mean(axis=(0, 1))
            for y in (0, len(image) // 2)
            for x in (0, len(image) // 2)
        ]
        for image in images
    ]
    return np.array(rows, np.float32).reshape(len(images), -1) - 120


def unit_greys(images: Sequence[np.ndarray]) -> np.ndarray:
    rows = colours([np.repeat(image[..., :1], 3, axis=2) * [0.2, 1, 0.7] for image in images])
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


SINGLE = Model("colours", colours, "1", (112,))
BRANCHES = Model("greys", unit_greys, "2", (14, 112))


def person_of(template: int) -> int:
    return template // 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Persons 1 to 8, templates 10, 11, 12, 13 of person 1 and so on, three faces each, of two media."""
    random = np.random.default_rng(SEED)
    place = tmp_path_factory.mktemp("ijb")
    (place / "loose_crop").mkdir()
    faces: list[str] = []
    landmarks: list[str] = []
    for person in range(1, PEOPLE + 1):
        pattern = random.integers(0, 256, (4, 4, 3))
        for template in range(10 * person, 10 * person + TEMPLATES):
            for number in range(FACES):
                name = f"{len(faces) + 1}.jpg"
                blocks = (pattern + random.normal(0, 70, (4, 4, 3))).clip(0, 255)
                scale = int(random.integers(15, 30))
                crop = np.kron(blocks, np.ones((scale, scale, 1))).astype(np.uint8)
                points = TEMPLATE * (4 * scale / 112) + random.normal(0, 1, (5, 2))
                (place / "loose_crop" / name).write_bytes(png(crop))
                faces.append(f"{name} {template} {7 + number // 2}")
                score = random.uniform(0.3, 1)
                landmarks.append(f"{name} {' '.join(f'{value:.3f}' for value in points.ravel())} {score:.3f}")
    (place / "tid_mid.txt").write_text("\n".join(faces))
    (place / "points.txt").write_text("\n".join(landmarks))
    templates = [10 * person + number for person in range(1, PEOPLE + 1) for number in range(TEMPLATES)]
    pairs = [(a, b) for i, a in enumerate(templates) for b in templates[i + 1 :]]
    lines = [f"{a} {b} {int(person_of(a) == person_of(b))}" for a, b in pairs]
    (place / "pairs.txt").write_text("\n".join(lines))
    for name, wanted in (
        ("G1", [10, 20, 30, 40]),
        ("G2", [50, 60, 70, 80]),
        ("probes", [template for template in templates if template % 10]),
    ):
        rows = [f"{template},{person_of(template)},x.png" for template in wanted]
        (place / f"{name}.csv").write_text("\n".join(["TEMPLATE_ID,SUBJECT_ID,FILENAME", *rows]))
    return place


def read(folder: Path, problems: Problems) -> TemplateData:
    """As a command would, after the images were looked through."""
    images = open_images(folder / "loose_crop")
    faces = read_faces(folder / "tid_mid.txt", images, problems, landmarks=folder / "points.txt")
    faces = usable_faces(faces, images, problems)
    galleries = [read_subjects(folder / f"{name}.csv", faces.templates, problems) for name in ("G1", "G2")]
    search = Search(galleries, read_subjects(folder / "probes.csv", faces.templates, problems))
    pairs = read_template_pairs(folder / "pairs.txt", faces.templates, problems)
    return TemplateData(faces, images, pairs, search)


class Reference:
    """The templates of a model at each setting, by the public programs' steps."""

    def __init__(self, data: TemplateData, model: Model) -> None:
        faces, points = data.faces, data.faces.points
        assert points is not None
        crops = [align(data.images.read(name), at) for name, at in zip(faces.names, points, strict=True)]
        self.faces = faces
        self.rows: dict[tuple[int, bool], np.ndarray] = {}
        for r in (112, 14):
            for mirrored in (False, True):
                seen = [np.ascontiguousarray(crop[:, ::-1]) if mirrored else crop for crop in crops]
                shown = [resize(x, (r, r)) if len(model.resolutions) > 1 else degrade(x, r) for x in seen]
                self.rows[r, mirrored] = model.embed(shown)

    def templates(self, r1: int, r2: int) -> dict[int, np.ndarray]:
        return template_features(
            self.rows[r1, False],
            self.rows[r2, True],
            self.faces.scores,
            self.faces.templates,
            self.faces.media,
            use_norm_score=False,
        )


def expected_measures(
    first: dict[int, np.ndarray], second: dict[int, np.ndarray], pairs: TemplatePairs, search: Search
) -> tuple[dict[float, float], list[float], list[float]]:
    """TARs by FAR; TPIRs and top-k with galleries together; the same of each gallery."""

    def scores(gallery: Subjects) -> np.ndarray:
        probes = np.array([second[template] for template in search.probes.templates])
        found: np.ndarray = probes @ np.array([first[template] for template in gallery.templates]).T
        return found

    pair_scores = np.array([first[a] @ second[b] for a, b in zip(pairs.first, pairs.second, strict=True)])
    # The nearest FAR is the largest one that is not above; with 448 pairs, none of FARS is halfway between two.
    tars = {far: tar_at_nearest_far(pairs.same, pair_scores, np.floor(far * 448) / 448) for far in FARS}
    people = np.concatenate([part.subjects for part in search.galleries])
    mask = [int(np.flatnonzero(people == person)[0]) for person in search.probes.subjects]
    together = search_in_all(np.hstack([scores(part) for part in search.galleries]), mask, FPIRS)
    each = [search_in_one(scores(part), search.probes.subjects, part.subjects, FPIRS) for part in search.galleries]
    tpirs = np.mean([tpirs for tpirs, _, _ in each], axis=0)
    tops = np.sum([tops for _, tops, _ in each], axis=0) / sum(count for _, _, count in each)
    return tars, [*together[0], *together[1]], [*tpirs, *tops]


def flat(identified: dict[str, dict[str, float]]) -> list[float]:
    return [*(identified["tpirs"][str(x)] for x in FPIRS), *(identified["tops"][str(k)] for k in RANKS)]


def test_report(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, tuple[list[float], list[float]]]] = []

    def noted(curves: dict[str, tuple[list[float], list[float]]]) -> Figure:
        drawn.append(curves)
        return roc_plot(curves)

    monkeypatch.setattr(template_report, "roc_plot", noted)
    problems = Problems()
    data = read(folder, problems)
    problems.report("pairs.txt, line 3: nobody")
    steps: list[tuple[str, int, int]] = []
    session = session_in(tmp_path, SINGLE, BRANCHES, problems=problems, progress=lambda *step: steps.append(step))
    page = write_templates(session, data, [14, 112], Aggregation())
    assert page == tmp_path / "out" / "templates.html"
    result = json.loads((tmp_path / "out" / "templates.json").read_text())
    assert result["models"] == {"colours": "1", "greys": "2"}
    assert result["problems"]["count"] == 1
    counts = result["numbers"]["counts"]
    assert (counts["faces"], counts["templates"]) == (96, 32)
    assert (counts["genuine pairs"], counts["impostor pairs"]) == (48, 448)
    assert (counts["galleries"], counts["probes"], counts["mated probes"]) == ([4, 4], 24, [12, 12])
    assert result["numbers"]["aggregation"] == {"detector_score": True, "norm_score": False, "flip": True}
    text = page.read_text()
    assert 'src="templates_roc.png"' in text
    assert {far[-1] for far, _ in drawn[0].values()} == {0.1}  # nothing is measured above
    assert (tmp_path / "out" / "templates_roc.svg").stat().st_size > 1000
    assert data.pairs is not None
    assert data.search is not None
    for model in (SINGLE, BRANCHES):
        assert (f"{model.name} at 14 px, mirrored", 96, 96) in steps
        assert (f"{model.name}, settings measured", 4, 4) in steps
        measured = result["numbers"]["measured"][model.name]
        assert list(measured) == ["112&112", "112&14", "14&14", "112 vs 14"]
        reference = Reference(data, model)
        for r1, r2 in ((112, 112), (112, 14), (14, 14)):
            both = reference.templates(r1, r2)
            check(measured[f"{r1}&{r2}"], [expected_measures(both, both, data.pairs, data.search)], text)
        high, low = reference.templates(112, 112), reference.templates(14, 14)
        expected = [expected_measures(*both, data.pairs, data.search) for both in ((high, low), (low, high))]
        check(measured["112 vs 14"], expected, text)


def check(
    found: dict[str, Any], expected: list[tuple[dict[float, float], list[float], list[float]]], text: str
) -> None:
    """Against the mean of what is expected in each direction."""
    for far in FARS:
        tar = float(np.mean([tars[far] for tars, _, _ in expected]))
        assert found["tars"][str(far)] == pytest.approx(tar, abs=1e-12)
        assert f"<td>{100 * tar:.2f}</td>" in text
    together, each = [numbers for _, numbers, _ in expected], [numbers for _, _, numbers in expected]
    for which, measures in (("together", together), ("each", each)):
        values = np.mean(measures, axis=0)
        np.testing.assert_allclose(flat(found[which]), values, atol=1e-12)
        for value in values:
            assert f"<td>{100 * value:.2f}</td>" in text


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    count=st.integers(1, 40),
    templates=st.integers(1, 6),
    media=st.integers(1, 4),
    how=st.builds(Aggregation, st.booleans(), st.booleans(), st.booleans()),
    seed=st.integers(0, 999),
)
def test_templates_as_in_the_public_programs(
    count: int, templates: int, media: int, how: Aggregation, seed: int
) -> None:
    random = np.random.default_rng(seed)
    faces = Faces(
        tuple(map(str, range(count))),
        random.integers(0, templates, count),
        random.integers(0, media, count),
        None,
        random.uniform(0.1, 1, count),
    )
    lengths = random.uniform(0.5, 20, (2, 2, count, 1))
    rows = (random.normal(size=(2, 2, count, 6)) * lengths).astype(np.float32)
    by_resolution = [{112: rows[0, side], 14: rows[1, side]} for side in (0, 1)]
    found = TemplateEmbeddings(faces, how, *by_resolution).templates(112, 14)
    expected = template_features(
        rows[0, 0],
        rows[1, 1] if how.flip else None,
        faces.scores if how.detector_score else None,
        faces.templates,
        faces.media,
        use_norm_score=how.norm_score,
    )
    assert found.ids.tolist() == list(expected)
    np.testing.assert_allclose(found.rows, list(expected.values()), atol=2e-6)


def test_without_flips_scores_and_search(tmp_path: Path, folder: Path) -> None:
    """Aligned crops without landmarks; nothing is embedded mirrored, and there is no 112&14."""
    images = open_images(folder / "loose_crop")
    faces = read_faces(folder / "tid_mid.txt", images, Problems())
    pairs = read_template_pairs(folder / "pairs.txt", faces.templates, Problems())
    steps: list[tuple[str, int, int]] = []
    session = session_in(tmp_path, SINGLE, progress=lambda *step: steps.append(step))
    how = Aggregation(detector_score=False, norm_score=True, flip=False)
    page = write_templates(session, TemplateData(faces, images, pairs, None), [112, 14], how)
    done = "colours at 112 px", "colours at 14 px", "colours, settings measured"
    assert {what for what, _, _ in steps} == {"digest of the images", *done}
    measured = json.loads((tmp_path / "out" / "templates.json").read_text())["numbers"]["measured"]["colours"]
    assert list(measured) == ["112&112", "14&14", "112 vs 14"]
    assert measured["14&14"]["together"] is None
    assert "1:N" not in page.read_text()
    rows = colours([degrade(images.read(name), 14) for name in faces.names])
    features = template_features(rows, None, None, faces.templates, faces.media, use_norm_score=True)
    scores = np.array([features[a] @ features[b] for a, b in zip(pairs.first, pairs.second, strict=True)])
    assert measured["14&14"]["tars"]["0.1"] == tar_at_nearest_far(pairs.same, scores, 44 / 448)


def test_search_alone(tmp_path: Path, folder: Path) -> None:
    data = replace(read(folder, Problems()), pairs=None)
    page = write_templates(session_in(tmp_path, SINGLE), data, [112], Aggregation())
    assert "FAR" not in page.read_text()
    assert not (tmp_path / "out" / "templates_roc.png").exists()


def test_a_second_run_embeds_nothing(tmp_path: Path, folder: Path) -> None:
    """And landmarks that differ are other faces."""

    def refuse(images: Sequence[np.ndarray]) -> np.ndarray:
        raise AssertionError("embedded again")

    data = read(folder, Problems())
    page = write_templates(session_in(tmp_path, SINGLE), data, [112], Aggregation())
    first = json.loads(page.with_suffix(".json").read_text())["numbers"]
    again = session_in(tmp_path, replace(SINGLE, embed=refuse))
    write_templates(again, data, [112], Aggregation())
    assert json.loads(page.with_suffix(".json").read_text())["numbers"] == first
    assert data.faces.points is not None
    moved = replace(data, faces=replace(data.faces, points=data.faces.points + 1))
    with pytest.raises(AssertionError, match="embedded again"):
        write_templates(again, moved, [112], Aggregation())


def broken_copy(folder: Path, copy: Path, broken: Sequence[str], landmarks: str | None = None) -> Path:
    (copy / "loose_crop").mkdir(parents=True)
    for file in folder.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    for file in (folder / "loose_crop").iterdir():
        damaged = file.name in broken
        (copy / "loose_crop" / file.name).write_bytes(b"no image" if damaged else file.read_bytes())
    if landmarks is not None:
        lines = (copy / "points.txt").read_text().splitlines()
        (copy / "points.txt").write_text("\n".join([landmarks, *lines[1:]]))
    return copy


def test_faces_that_cannot_be_used(tmp_path: Path, folder: Path) -> None:
    """Face 1 has bad landmarks, 2 and 3 are no images: template 10, a gallery's, has no face left."""
    copy = broken_copy(folder, tmp_path / "ijb", ["2.jpg", "3.jpg"], "1.jpg" + " 20 30" * 5 + " 0.5")
    problems = Problems()
    data = read(copy, problems)
    assert data.faces.names == tuple(f"{number}.jpg" for number in range(4, 97))
    assert data.faces.templates[0] == 11
    assert "2.jpg is not an image" in problems.messages[0]
    assert problems.messages[2] == "1.jpg: its landmarks are five times the same point"
    assert any("G1.csv, line 2: template 10 has no face" in message for message in problems.messages)
    assert problems.count == 3 + 1 + 31
    assert data.search is not None
    assert data.search.galleries[0].templates.tolist() == [20, 30, 40]
    page = write_templates(session_in(tmp_path, SINGLE, problems=problems), data, [112], Aggregation())
    result = json.loads(page.with_suffix(".json").read_text())
    assert result["problems"]["count"] == 35
    assert result["numbers"]["counts"]["mated probes"] == [9, 12]
    with pytest.raises(DataError, match=r"2\.jpg is not an image"):
        read(copy, Problems(strict=True))
    read(folder, Problems(strict=True))


def test_no_face_can_be_used(tmp_path: Path, folder: Path) -> None:
    copy = broken_copy(folder, tmp_path / "ijb", [f"{number}.jpg" for number in range(1, 97)])
    with pytest.raises(DataError, match="none of 96 images can be decoded"):
        read(copy, Problems())
    names = [f"{number}.jpg" for number in range(2, 97)]
    copy = broken_copy(folder, tmp_path / "one left", names, "1.jpg" + " 20 30" * 5 + " 0.5")
    with pytest.raises(DataError, match="no face can be decoded and aligned"):
        read(copy, Problems())


def test_data_that_do_not_fit(tmp_path: Path, folder: Path) -> None:
    """Named before anything is embedded."""
    data = read(folder, Problems())
    assert data.pairs is not None
    assert data.faces.scores is not None
    nobody = np.full(len(data.pairs.same), 99, np.int32)
    cases = {
        "neither pairs of templates nor a search": replace(data, pairs=None, search=None),
        "pairs of templates of both kinds": replace(data, pairs=replace(data.pairs, same=nobody == 0)),
        "template 99 has no face": replace(data, pairs=replace(data.pairs, second=nobody)),
        "no scores of a detector": replace(data, faces=replace(data.faces, scores=None)),
        "is -0.5, below zero": replace(data, faces=replace(data.faces, scores=data.faces.scores * 0 - 0.5)),
    }
    session = session_in(tmp_path, SINGLE, BRANCHES)
    for message, bad in cases.items():
        with pytest.raises(DataError, match=message):
            write_templates(session, bad, [112], Aggregation())
    with pytest.raises(DataError, match="greys gives embeddings of length one"):
        write_templates(session, data, [112], Aggregation(norm_score=True))
    assert not (tmp_path / "cache").exists()


def test_unmated_probes_only(folder: Path) -> None:
    search = read(folder, Problems()).search
    assert search is not None
    strangers = replace(search.probes, subjects=search.probes.subjects + 100)
    with pytest.raises(DataError, match="gallery 1 of 2 has none of the probes' subjects"):
        Search(search.galleries, strangers)
