"""A session: models by name, and what it writes."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from sessions import COMMAND, session_in

from btnet_eval.base import Problems
from btnet_eval.models import Model
from btnet_eval.report import Section

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
