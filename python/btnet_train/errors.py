"""How a training ends that does not reach its end. Other errors are ValueError and OSError, by what they concern."""


class TrainingError(RuntimeError):
    """A training that cannot go on; one sentence says at which step and why."""


class Interrupted(Exception):
    """A training that was asked to stop; its state is saved, and the same command goes on from there."""
