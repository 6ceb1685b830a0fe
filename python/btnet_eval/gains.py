"""How much of the possible improvement a model reaches: cross-resolution and same-resolution gain.

Both put an accuracy M of a model phi on a scale from that of phi_hr, which knows high resolution alone (0), to that of
the model which was made for this very comparison (1), as the update gain of backward-compatible training does (Shen et
al., CVPR 2020). He et al., BMVC 2023, report two gains of this kind, their Eq. 4 and 5; what is computed here is what
this page says, and has not been compared with the wording of theirs.

- Between resolutions, the reference is phi_mr, one network trained on all of them. phi_mm cannot be: the embeddings of
  its separate networks do not compare.
- At one resolution, the reference is phi_mm, whose network for it was trained for nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from btnet_eval.base import DataError

if TYPE_CHECKING:
    from btnet_eval.report import Section
    from btnet_eval.session import Run

Source: TypeAlias = tuple[Path, "str | None"]
"""A file that `verify` wrote, and which model in it; None: it has only one."""


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


@dataclass(frozen=True)
class Measured:
    """What one model reached in a verification.

    where: the file, for messages. accuracies: 0..1, by resolutions "r1&r2". data: digest by the name of what was read.
    flip: whether embeddings of the mirror images were added.
    """

    where: str
    accuracies: Mapping[str, float]
    data: Mapping[str, str]
    flip: bool


def read_measured(path: Path, model: str | None = None) -> Measured:
    """Read what `verify.write_verification` wrote, verification.json, of one model in it; None: it has only one.

    Raises DataError for other files and models, and OSError.
    """
    from btnet_eval.report import read_result  # here, since the gains alone need NumPy and no more

    result = read_result(path)
    numbers = result["numbers"]
    if result["kind"] != "Verification":
        raise DataError(f"{path}: it is the result of {result['kind']!r}, not of a verification")
    if model is None and len(numbers) == 1:
        model = next(iter(numbers))
    if model not in numbers:
        raise DataError(f"{path}: say which model: it has {', '.join(numbers)}" + (f", not {model}" if model else ""))
    try:
        of_model = numbers[model].items()
        accuracies = {setting: float(value["mean"]) for setting, value in of_model if value["mean"] is not None}
        flip = any(value["flip"] for _, value in of_model)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(f"{path}: the accuracies of {model} are not as btnet-eval writes them") from None
    if len(accuracies) < len(of_model):
        raise DataError(f"{path}: {model} has no accuracies, since its pairs are in one fold")
    return Measured(f"{path}, {model}", accuracies, result["data"], flip)


def gains_section(model: Measured, phi_hr: Measured, phi_mr: Measured, phi_mm: Measured) -> Section:
    """The gains of a model as a table: a row for each pair of resolutions that it was measured at.

    Of phi_mr is used what it reached between resolutions, of phi_mm what it reached at one. Raises DataError where
    they were measured on other data than the model, with mirror images and it without or the other way round, or not at
    those resolutions.
    """
    from btnet_eval.report import Section  # as above

    for reference in (phi_hr, phi_mr, phi_mm):
        if sorted(reference.data.values()) != sorted(model.data.values()):
            raise DataError(f"{reference.where}: it was measured on other data than {model.where}")
        if reference.flip != model.flip:
            how, other = ("with", "without") if reference.flip else ("without", "with")
            raise DataError(f"{reference.where}: it was measured {how} mirror images, and {model.where} {other}")
    rows = []
    for setting, accuracy in model.accuracies.items():
        r1, _, r2 = setting.partition("&")
        name, reference, gain = (
            ("phi_mm", phi_mm, same_resolution_gain) if r1 == r2 else ("phi_mr", phi_mr, cross_resolution_gain)
        )
        for measured in (phi_hr, reference):
            if setting not in measured.accuracies:
                raise DataError(f"{measured.where}: it was not measured at {setting}")
        low, high = phi_hr.accuracies[setting], reference.accuracies[setting]
        shown = [f"{100 * value:.2f}" for value in (accuracy, low, high)]
        rows.append([setting, *shown, name, gain(accuracy, low, high)])
    note = (
        "Accuracies in percent. The gain is 0 where the model is as good as phi_hr, 1 where it is as good as the "
        "reference: phi_mr between resolutions, phi_mm at one. It is not defined where the reference is not better."
    )
    return Section("Gains", ["resolutions", "model", "phi_hr", "reference", "which", "gain"], rows, note)


def write_gains(run: Run, model: Source, phi_hr: Source, phi_mr: Source, phi_mm: Source) -> Path:
    """Write OUT/gains.json, .md and .html from what `verify` wrote of four models; return the page's path.

    Raises DataError as `read_measured` and `gains_section`, and OSError.
    """
    from btnet_eval.report import Section  # as above

    sources = {"model": model, "phi_hr": phi_hr, "phi_mr": phi_mr, "phi_mm": phi_mm}
    measured = {role: read_measured(*source) for role, source in sources.items()}
    section = gains_section(**measured)
    compared = Section(
        "What was compared", ["role", "file, model"], [[role, of_role.where] for role, of_role in measured.items()]
    )
    run.read.update(measured["model"].data)
    return run.write("gains", "Gains", {str(row[0]): row[-1] for row in section.rows}, [compared, section], {})


def _gain(model: float, baseline: float, reference: float) -> float | None:
    if not all(map(math.isfinite, (model, baseline, reference))):
        raise ValueError(f"accuracies must be finite, not {model}, {baseline} and {reference}")
    if reference <= baseline:
        return None
    return (model - baseline) / (reference - baseline)
