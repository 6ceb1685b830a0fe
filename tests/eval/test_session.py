"""A session: models by name, and what it writes."""

import json
from pathlib import Path

import numpy as np
import pytest
from dataset_files import png
from matplotlib.figure import Figure
from sessions import COMMAND, session_in

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import open_images
from btnet_eval.models import Model
from btnet_eval.report import Section
from btnet_eval.session import image_sizes

ONE, OTHER = (Model(name, lambda images: np.ones((len(images), 2), np.float32), name[0], (112,)) for name in ("a", "b"))


@pytest.mark.parametrize("models", [[], [ONE, ONE], [ONE, OTHER, ONE]])
def test_models_need_names_of_their_own(models: list[Model], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"each with a name of its own, not (none|a, a|a, b, a)"):
        session_in(tmp_path, *models)


def test_what_it_writes(tmp_path: Path) -> None:
    problems = Problems()
    problems.report("a.png is gone")
    session = session_in(tmp_path, ONE, OTHER, problems=problems)
    figure = session.draw("nothing", Figure())
    session.read["pairs.tsv"] = "def"
    page = session.report("test", "Test", {"x": 1.5}, [Section("Nothing", [], [], figure=figure)])
    assert page == tmp_path / "out" / "test.html"
    assert 'src="nothing.png"' in page.read_text()
    assert sorted(file.name for file in page.parent.iterdir()) == [
        "nothing.png", "nothing.svg", "test.html", "test.json", "test.md",
    ]  # fmt: skip
    result = json.loads(page.with_suffix(".json").read_text())
    assert result["kind"] == "Test"
    assert result["numbers"] == {"x": 1.5}
    assert result["models"] == {"a": "a", "b": "b"}
    assert result["data"] == {"faces": "abc", "pairs.tsv": "def"}
    assert result["problems"] == {"count": 1, "messages": ["a.png is gone"]}
    assert result["command"] == COMMAND


def test_sizes(tmp_path: Path) -> None:
    """Of a name that comes twice the image is decoded once, and its problem told once."""
    for number, size in enumerate([(3, 5), (20, 10), (1, 1)]):
        content = b"no image" if number == 1 else png(np.zeros((*size, 3), np.uint8))
        (tmp_path / f"{number}.png").write_bytes(content)
    images, problems, steps = open_images(tmp_path), Problems(), []
    names = ["2.png", "1.png", "0.png", "1.png", "2.png"]
    sizes = image_sizes(names, images, problems, lambda *step: steps.append(step))
    assert list(sizes.items()) == [("2.png", (1, 1)), ("0.png", (3, 5))]
    assert steps == [("reading images", 3, 3)]
    assert problems.count == 1
    assert "1.png is not an image" in problems.messages[0]
    with pytest.raises(DataError, match=r"1\.png"):
        image_sizes(names, images, Problems(strict=True))
    with pytest.raises(DataError, match="none of 1 images can be decoded"):
        image_sizes(["1.png"], images, Problems())
