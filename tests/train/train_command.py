"""The command btnet-train in tests: arguments that make it short, and what it says."""

from collections.abc import Callable
from typing import TypeAlias

from tiny_training import SMALL, schedule

Call: TypeAlias = Callable[..., tuple[int, str, list[str]]]

SHORT = [f"--set={key}={value}" for key, value in {**SMALL, **schedule("trunk", 0.4)}.items()]
TEACH = ["--set=stages.trunk.teacher.cosine=1"]
HOW = ["--accelerator", "cpu", "--workers", 0]


def fail(call: Call, status: int, *arguments: object) -> str:
    """Return the only line that the command says."""
    code, out, lines = call(*arguments)
    assert (code, out, len(lines)) == (status, "", 1), lines
    return lines[0]
