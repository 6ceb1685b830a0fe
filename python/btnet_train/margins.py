"""The losses with margins by name, and with which margins they are defined; without PyTorch."""

import math

LOSSES = ("arcface", "cosface", "curricularface", "normface", "sphereface")


def check_margin(loss: str, margin: float) -> None:
    """Raise ValueError for a margin with which the loss is not defined, or is not what its paper means."""
    if loss == "sphereface":
        valid, expected = margin in range(1, 9), "a whole number from 1 to 8"
    elif loss == "normface":
        valid, expected = margin == 0, "0"
    elif loss == "cosface":
        valid, expected = 0 <= margin < 2, "from 0 to below 2"
    else:
        valid, expected = 0 <= margin < math.pi, "an angle in radians, from 0 to below pi"
    if not valid:
        raise ValueError(f"margin must be {expected} for {loss}, got {margin!r}")
