"""How much of the possible improvement a model reaches: cross-resolution and same-resolution gain.

Both put an accuracy M of a model phi on a scale from that of phi_hr, which knows high resolution alone (0), to that of
the model which was made for this very comparison (1), as the update gain of backward-compatible training does (Shen et
al., CVPR 2020). He et al., BMVC 2023, report two gains of this kind, their Eq. 4 and 5; what is computed here is what
this page says, and has not been compared with the wording of theirs.

- Between resolutions, the reference is phi_mr, one network trained on all of them. phi_mm cannot be: the embeddings of
  its separate networks do not compare.
- At one resolution, the reference is phi_mm, whose network for it was trained for nothing else.
"""

import math


def cross_resolution_gain(model: float, phi_hr: float, phi_mr: float) -> float | None:
    """(M(phi) - M(phi_hr)) / (M(phi_mr) - M(phi_hr)), M being the accuracy at r1&r2, r1 and r2 different.

    All three are accuracies of the same pairs at the same resolutions, in any one unit. 1: as good as phi_mr; above 1:
    better; negative: worse than phi_hr. None where phi_mr is not better than phi_hr: there is no scale then. Raises
    ValueError for what is not finite.
    """
    return _gain(model, phi_hr, phi_mr)


def same_resolution_gain(model: float, phi_hr: float, phi_mm: float) -> float | None:
    """(M(phi) - M(phi_hr)) / (M(phi_mm) - M(phi_hr)), M being the accuracy at r&r.

    As `cross_resolution_gain`, with phi_mm as the reference.
    """
    return _gain(model, phi_hr, phi_mm)


def _gain(model: float, baseline: float, reference: float) -> float | None:
    if not all(map(math.isfinite, (model, baseline, reference))):
        raise ValueError(f"accuracies must be finite, not {model}, {baseline} and {reference}")
    if reference <= baseline:
        return None
    return (model - baseline) / (reference - baseline)
