"""What changed between two runs of a benchmark, beyond noise, and which runs cannot be compared."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from common import measurements, table

FLOOR = 0.02
"""A median that moved by less, relative to the old one, is not called changed."""


def check_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Compare the settings that both have, of results or what is to be results. ValueError names one that differs."""
    settings, others = old.get("settings", {}), new.get("settings", {})
    for key in settings.keys() & others.keys():
        if settings[key] != others[key]:
            raise ValueError(
                f"the old results were measured with {key} {settings[key]!r}, these with {others[key]!r}: "
                "they cannot be compared"
            )


def refuse_others(settings: Mapping[str, Any], options: argparse.Namespace) -> None:
    """End the run before it measures anything, if the results of --compare have other settings."""
    if options.compare:
        try:
            check_settings(options.compare, {"settings": settings})
        except ValueError as error:
            sys.exit(f"--compare: {error}")


def _changed(old: Mapping[str, float], new: Mapping[str, float]) -> bool:
    """Tell whether all values of one lie beyond all of the other, and the medians are more than FLOOR apart.

    With five values each, that happens in one of 126 comparisons of what is the same.
    """
    disjoint = old["highest"] < new["lowest"] or new["highest"] < old["lowest"]
    return disjoint and abs(old["median"] - new["median"]) > FLOOR * old["median"]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Medians, old and new, of the figures that changed beyond noise."""
    before, after = measurements(old), measurements(new)
    return {
        name: (before[name]["median"], after[name]["median"])
        for name in after
        if name in before and _changed(before[name], after[name])
    }


def comparison(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Markdown of what changed from old to new beyond noise. ValueError where the two are not of the same kind."""
    check_settings(old, new)
    before, after = measurements(old), measurements(new)
    both = before.keys() & after.keys()
    if not both:
        raise ValueError("the old results have no figure in common with these: they cannot be compared")
    changed = changes(old, new)
    lines = [f"Changed beyond noise since {old['machine']['date']}: {len(changed)} of {len(both)} figures."]
    then, now = ({**of["machine"], **of["machine"]["versions"]} for of in (old, new))
    lines += [
        f"{part} was {then[part]} then, and is {value} now."
        for part, value in now.items()
        if part not in ("date", "versions") and part in then and then[part] != value
    ]
    if alone := len(before.keys() ^ after.keys()):
        lines.append(f"{alone} figures are in one of the two only.")
    if changed:
        rows = [[name, f"{a:.4g}", f"{b:.4g}", f"{b / a - 1:+.1%}"] for name, (a, b) in changed.items()]
        lines.append(table(["figure", "old", "new", "change"], rows))
    return "\n\n".join(lines)
