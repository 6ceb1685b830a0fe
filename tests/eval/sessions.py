"""Sessions of btnet_eval for tests."""

from pathlib import Path

from btnet_eval.base import Problems
from btnet_eval.cache import EmbeddingCache
from btnet_eval.models import Model
from btnet_eval.session import Progress, Session

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
