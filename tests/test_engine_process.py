"""The engine and the process it lives in: its cache, signals, fork, and memory that runs out."""

import gc
import logging
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from btnet_ext import Bundle, BundleError, Engine
from bundle_copies import BundleCopy
from letting_go import interrupted_after
from reference import faces

SEED = 17
IMAGES = faces([(5, 6), (12, 9), (25, 28), (60, 50)], SEED)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, not there yet."""
    monkeypatch.setenv("BTNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(code: str, *arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    command = [sys.executable, "-X", "faulthandler", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    return done


def test_second_engine_uses_the_cache(small_bundle: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Engine(small_bundle).embed(IMAGES)
    files = {file: file.stat().st_mtime_ns for file in cache.rglob("*") if file.is_file()}
    assert len(files) == 4
    second = Engine(small_bundle).embed(IMAGES)
    assert {file: file.stat().st_mtime_ns for file in cache.rglob("*") if file.is_file()} == files
    np.testing.assert_allclose(second, first, rtol=0, atol=1e-6)
    assert not caplog.records


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "trailer", "payload"])
def test_damaged_cache_is_rebuilt(
    small_bundle: Path, cache: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    expected = Engine(small_bundle, resolutions=[14]).embed(IMAGES)
    (file,) = (path for path in cache.rglob("*") if path.is_file())
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "empty":
        content = bytearray()
    elif damage == "text":
        content = bytearray(b"no network")
    elif damage == "trailer":
        content[-1] ^= 1
    else:  # weights turned to zero, as by a bad block
        middle = len(content) // 2
        content[middle : middle + 65536] = bytes(65536)
    file.write_bytes(content)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="btnet_ext"):
        actual = Engine(small_bundle, resolutions=[14]).embed(IMAGES)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
    assert file.name in caplog.text
    caplog.clear()
    Engine(small_bundle, resolutions=[14])
    assert not caplog.records, "it was not rebuilt"


def test_cache_that_cannot_be_written(small_bundle: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = Engine(small_bundle).embed(IMAGES)
    blocked = cache.parent / "blocked"
    blocked.write_text("a file in place of a folder")
    os.environ["BTNET_CACHE"] = str(blocked)  # put back by the fixture
    with caplog.at_level(logging.WARNING, logger="btnet_ext"):
        actual = Engine(small_bundle).embed(IMAGES)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
    assert str(blocked) in caplog.text
    assert "BTNET_CACHE" in caplog.text


def test_a_cache_whose_path_is_not_utf8(small_bundle: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It cannot be written either: the warning must not be an error of its own."""
    blocked = cache.parent / os.fsdecode(b"blocked \xff")
    blocked.write_text("a file in place of a folder")
    os.environ["BTNET_CACHE"] = str(blocked)  # put back by the fixture
    with caplog.at_level(logging.WARNING, logger="btnet_ext"):
        assert Engine(small_bundle, resolutions=[7]).embed(IMAGES).shape == (4, 512)
    assert "blocked \\xff" in caplog.text


def test_a_bundle_does_not_keep_its_engine(small_bundle: Path) -> None:
    engine = Engine(small_bundle, resolutions=[7])
    native = weakref.ref(engine._native)
    bundle = engine.bundle
    del engine
    gc.collect()
    assert native() is None
    assert bundle.dim == 512


@pytest.mark.usefixtures("cache")
def test_a_damaged_bundle_does_not_live_on_in_the_cache(small_bundle: Path, tmp_path: Path) -> None:
    """A download with a broken block, used once and then replaced by a whole one, whose model.json is the same."""
    copy = BundleCopy(small_bundle, tmp_path / "copy.btnet")
    copy.edit_model(lambda model: model.update(name="copy"))  # a digest that no cache knows
    weights = copy.path / "weights.bin"
    content = weights.read_bytes()
    damaged = bytearray(content)
    damaged[len(content) // 2 : len(content) // 2 + 65536] = bytes(65536)
    weights.write_bytes(damaged)
    with pytest.raises(BundleError, match=r"weights\.bin"):
        Engine(copy.path)
    weights.write_bytes(content)
    Bundle.open(copy.path).verify()
    np.testing.assert_allclose(Engine(copy.path).embed(IMAGES), Engine(small_bundle).embed(IMAGES), rtol=0, atol=1e-6)


INTERRUPT = """
import signal, sys
import numpy as np
from btnet_ext import Engine
engine = Engine(sys.argv[1], resolutions=[112], threads=1)
images = [np.full((112, 112, 3), 7, np.uint8)] * 100_000
before = engine.embed(images[:3])
signal.setitimer(signal.ITIMER_REAL, 2)
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    engine.embed(images)
    print("done")
except KeyboardInterrupt:
    print("interrupted")
np.testing.assert_allclose(engine.embed(images[:3]), before, atol=1e-6)
"""


def test_keyboard_interrupt(small_bundle: Path) -> None:
    """In a call that would go on for longer than `run` waits; the engine goes on working."""
    assert run(INTERRUPT, small_bundle).stdout == "interrupted\n"


MAKE = """
from btnet_ext import Engine
made = [Engine(sys.argv[1], resolutions=[7])]
"""


def test_signals_after_another_thread_let_go_of_an_engine(small_bundle: Path) -> None:
    assert interrupted_after(MAKE, small_bundle)


FORK = """
import os, sys
import numpy as np
from btnet_ext import BtnetError, Engine
engine = Engine(sys.argv[1], resolutions=[7])
images = [np.full((9, 9, 3), 7, np.uint8)] * 5
before = engine.embed(images)
child = os.fork()
if child == 0:
    try:
        engine.embed(images)
    except BtnetError as error:
        assert "fork" in str(error), error
        assert engine.select(images).tolist() == [7] * 5
        if sys.argv[2] == "new":
            assert np.abs(Engine(sys.argv[1], resolutions=[7]).embed(images) - before).max() < 1e-6
        del engine
        sys.exit(0)
    sys.exit(3)
status = os.waitpid(child, 0)[1]
assert status == 0, status
assert np.abs(engine.embed(images) - before).max() < 1e-6
"""


@pytest.mark.parametrize("child", ["ends", "new"])
def test_fork(small_bundle: Path, child: str) -> None:
    """A child gets an error and ends; with "new" it makes an engine of its own."""
    run(FORK, small_bundle, child)


MEMORY = """
import resource, sys
import numpy as np
from btnet_ext import Engine
engine = Engine(sys.argv[1], resolutions=[7])
images = [np.full((9, 9, 3), 7, np.uint8)] * 200
before = engine.embed(images[:5])
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
many = images * 1000  # 200,000 embeddings take 400 MB
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20, resource.RLIM_INFINITY))
try:
    engine.embed(many)
    print("done")
except MemoryError:
    print("no memory")
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert np.abs(engine.embed(images[:5]) - before).max() < 1e-6
"""


def test_memory_that_runs_out(small_bundle: Path) -> None:
    assert run(MEMORY, small_bundle).stdout.strip() == "no memory"


def test_engine_is_freed(small_bundle: Path) -> None:
    code = """
import sys, threading, os
import numpy as np
from btnet_ext import Engine
for _ in range(6):
    engine = Engine(sys.argv[1], resolutions=[7], threads=2)
    engine.embed([np.zeros((7, 7, 3), np.uint8)] * 40)
    del engine
    print(len(os.listdir("/proc/self/task")))
"""
    counts = [int(line) for line in run(code, small_bundle).stdout.split()]
    assert counts[-1] <= counts[1], f"threads pile up: {counts}"
