"""Which layers an IResNet of a resolution has, and where branch and trunk meet; without PyTorch."""

import re

UNITS = {"res18": (2, 2, 2, 2), "res34": (3, 4, 6, 3), "res50": (3, 4, 14, 3), "res100": (3, 13, 30, 3)}
"""Units of each of the four stages, by architecture."""

RESOLUTIONS = (7, 14, 28, 56, 112)
"""Sides of the square inputs a network can be built for, in pixels."""

CANONICAL = 112
"""The resolution of the trunk."""

BASE_CHANNELS = 64
"""Channels of the stem and of stage 1 at width 1; every further stage has twice those of the one before."""

_BATCH_NORM_NAME = re.compile(r"(?:^|\.)(?:bn[123]|downsample\.1|features)\.[a-z_]+$")


def stride_of(stage: int, resolution: int) -> int:
    """Return the stride of the first unit of stage 1 to 4 in the network of a resolution."""
    return 2 if resolution >= CANONICAL // 2 ** (stage - 1) else 1


def coupling_stage(resolution: int) -> int:
    """Return the stage, 1 to 4, whose maps in the trunk have the side of a branch's input: 56, 28, 14, 7.

    The first unit of that stage is the coupling layer. It belongs to the branch. Raises ValueError for 112,
    which is the trunk, and for anything that is no resolution.
    """
    if resolution not in RESOLUTIONS or resolution == CANONICAL:
        raise ValueError(f"resolution of a branch must be one of 7, 14, 28, 56, got {resolution!r}")
    return (CANONICAL // resolution).bit_length() - 1


def in_branch(name: str, resolution: int, stage: int | None = None) -> bool:
    """Tell whether a parameter or buffer of a network of `resolution` belongs to the branch.

    The branch is the stem and everything up to and including the first unit of the coupling stage, or of
    `stage` if the branch joins the trunk elsewhere.
    """
    stage = coupling_stage(resolution) if stage is None else stage
    head, _, rest = name.partition(".")
    if head.startswith("layer"):
        own = int(head.removeprefix("layer"))
        return own < stage or (own == stage and rest.startswith("0."))
    return head in ("conv1", "bn1", "prelu")


def is_batch_norm(name: str) -> bool:
    """Tell whether a parameter or buffer is of a BatchNorm, `features` and those of shortcuts included."""
    return _BATCH_NORM_NAME.search(name) is not None
