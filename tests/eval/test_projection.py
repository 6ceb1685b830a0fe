"""Projections of stand-in embeddings: which images, how similar, and what is refused."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import pillow_resize, png
from sessions import session_in

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import NamedImages, open_images
from btnet_eval.models import Model
from btnet_eval.projection import write_projection
from btnet_ext import InvalidOption

SEED = 31


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> NamedImages:
    folder = tmp_path_factory.mktemp("faces")
    random = np.random.default_rng(SEED)
    for number in range(12):
        pixels = np.kron(random.integers(0, 256, (8, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        (folder / f"{number:02}.png").write_bytes(b"no image" if number == 11 else png(pixels))
    return open_images(folder)


def coarse(shown: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([pillow_resize(image, 4).ravel() for image in shown], np.float32) - 128


MODEL = Model("coarse", coarse, "coarse", (112,))


def test_page_of_projections(tmp_path: Path, images: NamedImages) -> None:
    other = replace(MODEL, name="other", digest="other", embed=lambda shown: coarse(shown) + 100)
    seen: list[tuple[str, int, int]] = []
    problems = Problems()
    session = session_in(tmp_path, MODEL, other, problems=problems, progress=lambda *step: seen.append(step))
    page = write_projection(session, images, (3, 32))
    assert page == tmp_path / "out" / "projection.html"
    for number in (1, 2):
        assert f'src="projection_{number}.png"' in page.read_text()
        assert (tmp_path / "out" / f"projection_{number}.svg").stat().st_size > 1000
    embedded = {f"{name} at {r} px" for name in ("coarse", "other") for r in (3, 32)}
    assert {what for what, _, _ in seen} == {"reading images", "digest of the images", *embedded}
    assert problems.count == 1
    result = json.loads((tmp_path / "out" / "projection.json").read_text())
    assert result["numbers"]["images"] == 11
    rows = result["numbers"]["similarity"]
    assert [(row["model"], row["resolution"]) for row in rows] == [
        ("coarse", 32),
        ("coarse", 3),
        ("other", 32),
        ("other", 3),
    ]
    similar = []
    for number in range(11):
        u, v = (
            coarse([pillow_resize(pillow_resize(images.read(f"{number:02}.png"), side), 112)])[0].astype(np.float64)
            for side in (32, 3)
        )
        similar.append(u @ v / np.sqrt((u @ u) * (v @ v)))
    assert rows[0]["mean"] == pytest.approx(1)
    assert [rows[1][name] for name in ("mean", "deviation", "lowest")] == pytest.approx(
        [np.mean(similar), np.std(similar), min(similar)]
    )
    assert 0 < np.mean(similar) < 0.99
    assert result["numbers"]["seed"] == 0
    assert result["sections"][0]["note"] == "t-SNE from seed 0."
    # Not 1e-16 between an embedding and itself.
    assert result["sections"][-1]["rows"][0] == ["coarse", 32, "1.0000", "0.0000", "1.0000"]


def test_images_are_spread_over_the_names(tmp_path: Path, images: NamedImages) -> None:
    shown: list[np.ndarray] = []

    def remember(given: Sequence[np.ndarray]) -> np.ndarray:
        shown.extend(given)
        return coarse(given)

    model = replace(MODEL, embed=remember)
    write_projection(session_in(tmp_path, model, problems=Problems()), images, (7, 32), most=4)
    # Of the places 0, 3.7, 7.3 and 11, the last is no image.
    expected = [pillow_resize(pillow_resize(images.read(f"{number:02}.png"), 32), 112) for number in (0, 4, 7)]
    assert len(shown) == 6
    for image, wanted in zip(shown[:3], expected, strict=True):
        np.testing.assert_array_equal(image, wanted)


def test_projections_that_cannot_be(tmp_path: Path, images: NamedImages) -> None:
    session = session_in(tmp_path, MODEL, problems=Problems())
    with pytest.raises(DataError, match="3 images at 1 resolutions are too few to draw"):
        write_projection(session, images, (7,), most=4)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"resolutions": ()}, "resolutions must be 1 to 8, each once"),
        ({"resolutions": (7, 7)}, "resolutions must be 1 to 8, each once, not 7, 7"),
        ({"resolutions": range(7, 16)}, "resolutions must be 1 to 8"),
        ({"most": 0}, "most must be at least 1, not 0"),
    ]
    for change, message in wrong:
        with pytest.raises(InvalidOption, match=message):
            write_projection(session, images, **({"resolutions": (7,)} | change))
