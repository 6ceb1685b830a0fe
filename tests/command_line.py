"""Ways to run the command btnet in tests."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

COMMAND = Path(sys.executable).with_name("btnet")

Call: TypeAlias = Callable[..., tuple[int, str, list[str]]]
"""What the fixture `call` is: arguments to exit code, stdout, and the lines of stderr without their prefix."""


def in_process(
    name: str, main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Run a command in this process; each line of stderr has to begin with its name."""

    def run_main(*arguments: object) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        code, lines = caught.value.code or 0, err.splitlines()
        assert isinstance(code, int), code
        assert all(line.startswith(f"{name}: ") for line in lines), err
        return code, out, [line.removeprefix(f"{name}: ") for line in lines]

    return run_main


def without_module(module: str, package: str, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command of a package in a process in which a module cannot be imported."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv = {[command, *arguments]!r}; "
        f"from {package}.cli import main; main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own."""
    command = [str(COMMAND), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def succeed(*command: object) -> None:
    """Run a program that has to exit with 0; its output is shown where it does not."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
