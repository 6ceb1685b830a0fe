"""Run as a program: prints what a TensorRT module has, as JSON, without making any object of it.

Class to member to a list of signatures (each a list of parameters, optional ones ending in "="), or to "property" or
"value". It is a process of its own because the two TensorRTs do not go into one, and their libraries may be stubs.
"""

import importlib
import inspect
import json
import re
import sys
from typing import Any


def members(kind: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in dir(kind):
        member = getattr(kind, name)
        if isinstance(inspect.getattr_static(kind, name), property):
            found[name] = "property"
        elif callable(member) and not inspect.isclass(member):
            found[name] = signatures(member)
        else:
            found[name] = "value"
    return found


def signatures(function: Any) -> list[list[str]]:
    """Read the parameters of all overloads from a docstring that pybind11 made."""
    lines = re.findall(rf"^(?:\d+\. )?{function.__name__}\((.*)\) ->", function.__doc__ or "", re.MULTILINE)
    return [parameters(line) for line in lines if not line.startswith("*args")]


def parameters(text: str) -> list[str]:
    """'self: X, a: dict[int, int], b: int = 0' to ['a', 'b=']."""
    while (plain := re.sub(r"\[[^\[\]]*\]|<[^<>]*>|\([^()]*\)", "", text)) != text:
        text = plain
    names = [part.split(":")[0].strip() + ("=" if "=" in part else "") for part in text.split(",")]
    return [name for name in names if name != "self"]


if __name__ == "__main__":
    classes = {name: kind for name, kind in vars(importlib.import_module(sys.argv[1])).items() if inspect.isclass(kind)}
    json.dump({name: members(kind) for name, kind in classes.items()}, sys.stdout)
