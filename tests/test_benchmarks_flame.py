"""The flame graph's reading of perf's output, from a text made by hand; how it ends where perf does not work."""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

# At the end: a benchmark must not take the place of another module of its name.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import flame_graph

PLUGIN = "/venv/openvino/libs/libopenvino_intel_cpu_plugin.so"
SCRIPT = f"""python  6014
\t    7f7ce75c45d5 [unknown] (/tmp/perf-5995.map)

python  6015
\t    7f7ce75c4600 [unknown] (/tmp/perf-5995.map)

python  6007
\t          16395a __memmove_evex (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t         2b95937 [unknown] ({PLUGIN})
\t         2b2ed23 [unknown] ({PLUGIN})
\t          1098eb clone3 (/usr/lib/x86_64-linux-gnu/libc.so.6)

python  5995
\t           1234f btnet::resize(int, char (*)(int)) (/venv/btnet_ext/_core.cpython-311-x86_64-linux-gnu.so)
\t           54321 _PyEval_EvalFrameDefault (/usr/bin/python3.11)

python  5995
\tffffffff813a2313 finish_task_switch.isra.0 ([kernel.kallsyms])

"""
PYTHON = ("Python", "_PyEval_EvalFrameDefault")
LINUX, LIBRARY = ("C library and Linux", "finish_task_switch.isra.0"), ("C library and Linux", "__memmove_evex")
COUNTED = Counter(
    {
        (("generated kernels", "generated kernels"),): 2,
        (("C library and Linux", "clone3"), ("OpenVINO", "libopenvino_intel_cpu_plugin"), LIBRARY): 1,
        (PYTHON, ("btnet", "btnet::resize(int, char (*)(int))")): 1,
        (LINUX,): 1,
    }
)


def test_stacks_are_read_from_the_outermost_frame() -> None:
    assert flame_graph.stacks(SCRIPT) == COUNTED
    assert flame_graph.stacks("") == Counter()


def test_a_copy_counts_for_who_asked_for_it() -> None:
    found = flame_graph.shares(COUNTED)
    assert found == {"generated kernels": 0.4, "OpenVINO": 0.2, "btnet": 0.2, "C library and Linux": 0.2}


def test_a_perf_that_fails_ends_the_run_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "perf").write_text("#!/bin/sh\necho first >&2; echo no permission >&2; exit 255\n")
    (tmp_path / "perf").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(SystemExit, match=r"^perf record failed: no permission$"):
        flame_graph.perf("record")


def test_without_perf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["flame_graph.py", "--quick"])
    with pytest.raises(SystemExit, match=r"^there is no perf here: install it \(Debian: linux-perf\)$"):
        flame_graph.main()
