"""How a training ends that does not reach its end. Other errors are ValueError and OSError, by what they concern."""

from collections.abc import Iterator
from contextlib import contextmanager


class TrainingError(RuntimeError):
    """A training that cannot go on; one sentence says at which step and why."""


class Interrupted(Exception):
    """A training that was asked to stop; its state is saved, and the same command goes on from there."""


@contextmanager
def lost_processes() -> Iterator[None]:
    """Say in a sentence, as TrainingError, that another process of the training has ended; which one says why."""
    try:
        yield
    except RuntimeError as error:
        # Gloo's words, by what it was about to do.
        if not any(words in str(error) for words in ("closed by peer", "reset by peer", "Broken pipe")):
            raise
        raise TrainingError("another process of this training has ended, and so does this one") from error
