"""Sessions of btnet_eval for tests, and results of its command."""

import json
from pathlib import Path
from typing import Any

from btnet_eval.base import Problems
from btnet_eval.cache import EmbeddingCache
from btnet_eval.embedder import Progress
from btnet_eval.models import Model
from btnet_eval.session import Session

COMMAND = ["btnet-eval", "a test"]


def session_in(
    folder: Path, *models: Model, problems: Problems | None = None, progress: Progress | None = None
) -> Session:
    """A session with its report in FOLDER/out and its cache in FOLDER/cache; without problems, the first one raises."""
    return Session(
        models=models,
        cache=EmbeddingCache(folder / "cache"),
        out=folder / "out",
        command=COMMAND,
        problems=problems or Problems(strict=True),
        progress=progress,
        read={"faces": "abc"},
    )


def result_of(out: str) -> dict[str, Any]:
    """What is beside the page whose path is the last line that the command printed."""
    page = Path(out.splitlines()[-1])
    assert page.is_file()
    result: dict[str, Any] = json.loads(page.with_suffix(".json").read_text())
    return result
