"""The emulator: it computes what a GPU does, and catches what a GPU would leave unnoticed."""

import re
import sys
from pathlib import Path

import emulated
import numpy as np
import pytest
from kernels import ORDERS, EmulatedKernels


@pytest.fixture(params=ORDERS)
def kernels(emulated_kernels: EmulatedKernels, request: pytest.FixtureRequest) -> EmulatedKernels:
    emulated_kernels.set_order(ORDERS[request.param])
    return emulated_kernels


VALUES = np.arange(64, dtype=np.int32) ** 2


def result(kernels: EmulatedKernels, case: str, values: np.ndarray = VALUES) -> np.ndarray:
    values = values.copy()
    kernels.run_case(case, values)
    return values


def test_shared_memory_and_barrier(kernels: EmulatedKernels) -> None:
    np.testing.assert_array_equal(result(kernels, "reverse"), VALUES[::-1])


@pytest.mark.parametrize("count", [64, 40], ids=["whole warps", "part of a warp"])
def test_shuffles(kernels: EmulatedKernels, count: int) -> None:
    values = VALUES[:count]
    expected = values.reshape(-1, 8).sum(axis=1).repeat(8)
    np.testing.assert_array_equal(result(kernels, "sum groups of 8", values), expected)


def test_halves_of_a_warp_go_their_own_ways(kernels: EmulatedKernels) -> None:
    expected = VALUES.reshape(-1, 16).sum(axis=1).repeat(16)
    np.testing.assert_array_equal(result(kernels, "sum halves"), expected)


def test_missing_barrier_shows_in_every_order(kernels: EmulatedKernels) -> None:
    assert (result(kernels, "reverse without barrier") != VALUES[::-1]).any()


def test_shared_memory_that_nobody_wrote_is_poisoned_in_each_block(kernels: EmulatedKernels) -> None:
    # All bits set, from the block that wrote nothing; in descending order that is the first one.
    expected = 1 if kernels.order == 1 else -1
    np.testing.assert_array_equal(result(kernels, "read unwritten"), np.full(64, expected))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("two barriers", "threads wait at different barriers"),
        ("leave before barrier", r"ended without reaching the barrier .*thread \(5, 0, 0\)"),
        ("lane not in mask", r"called by a lane that is not in its mask .*thread \((0|32), 0, 0\)"),
        ("from outside mask", "reads a lane that is not in its mask"),
        ("lane that left", "names a lane that has ended|deadlock"),
        ("lanes at barrier", "deadlock"),
        ("too many threads", r"blocks of \(1025, 1, 1\) threads"),
        ("too much shared memory", "49153 bytes of shared memory"),
        ("no blocks", r"grid of \(0, 1, 1\) blocks"),
    ],
)
def test_mistakes_are_caught(kernels: EmulatedKernels, case: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        result(kernels, case)
    np.testing.assert_array_equal(result(kernels, "reverse"), VALUES[::-1])  # and it still works


RUN_CASE = """
import os, sys
import numpy as np
from kernels import SANITIZED, EmulatedKernels
from pathlib import Path
EmulatedKernels(Path(os.environ[SANITIZED])).run_case(sys.argv[1], np.zeros(64, np.int32))
"""


@pytest.mark.parametrize("case", ["write static shared", "write dynamic shared", "write global"])
def test_writes_out_of_bounds_are_caught(sanitized_library: Path, case: str) -> None:
    done = emulated.run_sanitized(sanitized_library, "-c", RUN_CASE, case)
    assert done.returncode != 0
    # AddressSanitizer for what goes by a pointer, UBSan for an index into an array.
    assert re.search(r"buffer-overflow|index 64 out of bounds", done.stderr), done.stderr


def test_all_kernels_under_sanitizers(sanitized_library: Path) -> None:
    here = Path(__file__).parent
    tests = [here / f"test_{name}_kernels.py" for name in ("resize", "degrade", "scatter")]
    options = ["-q", "-m", "not gpu", "-p", "no:cacheprovider", "-W", "ignore"]
    done = emulated.run_sanitized(sanitized_library, "-m", "pytest", *options, *tests)
    assert done.returncode == 0, f"{sys.executable}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
