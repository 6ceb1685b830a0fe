"""Protocols of resolutions: worked out with Python's integers, and files that are wrong."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from btnet_eval.base import DataError
from btnet_eval.protocols import PROTOCOLS, generate, read_resolutions

RANGES = {"low": range(5, 11), "mid": range(10, 41), "high": range(40, 113), "all": range(5, 113)}


def test_the_protocols_of_the_paper() -> None:
    assert {name: range(lowest, highest + 1) for name, (lowest, highest) in PROTOCOLS.items()} == RANGES


@settings(derandomize=True, deadline=None)
@given(st.sampled_from(sorted(RANGES)), st.integers(0, 300), st.integers(0, 2**70))
def test_a_number_of_32_bits_picks_a_resolution(protocol: str, count: int, seed: int) -> None:
    found = generate(protocol, count, seed)
    bits = np.random.PCG64(seed)
    choices = RANGES[protocol]
    expected = [choices[((bits.random_raw() >> 32) * len(choices)) >> 32] for _ in range(count)]
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize("protocol", RANGES)
def test_each_is_as_likely_as_the_others(protocol: str) -> None:
    choices = RANGES[protocol]
    counts = np.bincount(generate(protocol, 100_000, seed=3) - choices.start, minlength=len(choices))
    assert len(counts) == len(choices)
    assert scipy.stats.chisquare(counts).pvalue > 0.001


def test_a_seed_gives_the_same_forever() -> None:
    assert generate("all", 6, seed=0).tolist() == generate("all", 9, seed=0).tolist()[:6]
    assert generate("all", 6, seed=0).tolist() == [73, 34, 9, 6, 92, 103]
    assert generate("all", 6, seed=1).tolist() != generate("all", 6, seed=0).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny", 3, 0), "protocol must be one of low, mid, high, all, not 'tiny'"),
        (("low", -1, 0), "count and seed must not be negative, got -1 and 0"),
        (("low", 1, -2), "count and seed must not be negative, got 1 and -2"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(*arguments)


@pytest.mark.parametrize("text", ["5,112,7,28", "5,112,7,28\n", "5, 112, 7, 28 \r\n", "5,112,07,28\n\n"])
def test_a_line_of_resolutions(tmp_path: Path, text: str) -> None:
    path = tmp_path / "low.csv"
    path.write_bytes(text.encode())
    found = read_resolutions(path, 4)
    assert found.dtype == np.int64
    assert found.tolist() == [5, 112, 7, 28]
    assert read_resolutions(str(path), 4).tolist() == [5, 112, 7, 28]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 112), min_size=1))
def test_what_numpy_writes_is_read(tmp_path_factory: pytest.TempPathFactory, resolutions: list[int]) -> None:
    path = tmp_path_factory.mktemp("protocol") / "all.csv"
    np.savetxt(path, [resolutions], fmt="%d", delimiter=",")
    assert read_resolutions(path, len(resolutions)).tolist() == resolutions


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: it has 0 resolutions for 3 images"),
        (b"5,6", "line 1: it has 2 resolutions for 3 images"),
        (b"5,6,7,8", "line 1: it has 4 resolutions for 3 images"),
        (b"5,6,7,", "line 1: resolution 4 must be an integer from 1 to 112, not ''"),
        (b"5,0,7", "line 1: resolution 2 must be an integer from 1 to 112, not '0'"),
        (b"5,6,113", "line 1: resolution 3 must be an integer from 1 to 112, not '113'"),
        (b"5,-6,7", "line 1: resolution 2 must be an integer from 1 to 112, not '-6'"),
        (b"5,6.0,7", "line 1: resolution 2 must be an integer from 1 to 112, not '6.0'"),
        (b"5;6;7", "line 1: resolution 1 must be an integer from 1 to 112, not '5;6;7'"),
        (b"5,6\n7", "line 2: all resolutions must be in the first line"),
        (b"\n5,6,7", "line 2: all resolutions must be in the first line"),
        (b"5,6,\xff", "low.csv: the resolutions must be numbers with commas between them"),
        ("5,6,\u0667".encode(), "low.csv: the resolutions must be numbers with commas between them"),
        (b"5,6," + b"9" * 5000, "line 1: resolution 3 must be an integer from 1 to 112, not '9{39}$"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "low.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_resolutions(path, 3)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        read_resolutions(tmp_path / "none.csv", 1)
