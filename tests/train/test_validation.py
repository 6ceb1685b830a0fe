"""Held-out faces: who they are, pairs of them, both kinds, none twice, in little memory, and what they measure."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from face_files import encode, png, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from numpy.typing import NDArray
from tiny_training import write_faces
from torch.nn import functional

import btnet_ext
from btnet_eval.verification import cross_resolution
from btnet_train.networks import IResNet
from btnet_train.sources import Faces
from btnet_train.validation import HeldOut, choose_identities, draw_pairs


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(0, 2**32 - 1))
def test_pairs_of_one_and_of_two(sizes: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    same = sum(size * (size - 1) // 2 for size in sizes)
    different = len(labels) * (len(labels) - 1) // 2 - same
    count = min(20, same, different)
    if count < 10:
        with pytest.raises(ValueError, match=f"make {count} pairs of each kind, expected 10 or more"):
            draw_pairs(labels, 40, np.random.default_rng(seed))
        return
    first, second = draw_pairs(labels, 40, np.random.default_rng(seed))
    of_one = labels[first] == labels[second]
    np.testing.assert_array_equal(of_one, np.arange(2 * count) < count)
    assert (first != second).all()
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == 2 * count


def test_each_pair_of_two_is_as_likely() -> None:
    """12 faces of two people: each of the 32 pairs of two is among the 15 that are drawn in 15 / 32 of the draws."""
    labels = np.repeat([0, 1], [8, 4])
    counts = np.zeros((12, 12))
    draws = 4000
    for seed in range(draws):
        first, second = draw_pairs(labels, 30, np.random.default_rng(seed))
        np.add.at(counts, (first[15:], second[15:]), 1)
    expected = draws * 15 / 32
    # Five standard deviations of a binomial.
    assert np.abs(counts[:8, 8:] - expected).max() < 5 * np.sqrt(expected * (1 - 15 / 32))


def test_accuracies_are_of_pairs_at_a_network_s_own_size_and_across(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    files = {}
    for person in range(6):  # hardly alike: the images of one are far from each other, too
        pattern = np.kron(generator.normal(0, 25, (4, 4, 3)), np.ones((6, 6, 1)))
        for number in range(5):
            pixels = np.clip(128 + pattern + generator.normal(0, 50, pattern.shape), 0, 255).astype(np.uint8)
            files[f"{person}/{number}.png"] = encode(pixels)
    faces = Faces([write_folder(tmp_path / "faces", files)])
    torch.manual_seed(3)
    trunk, branch = (IResNet("res18", 0.125, side, dim=16).eval() for side in (112, 14))
    images = [btnet_ext.resize(faces.read(number), (112, 112)) for number in range(len(faces))]
    first, second = draw_pairs(faces.labels, 100, np.random.default_rng(5))
    same, folds = faces.labels[first] == faces.labels[second], np.arange(len(first)) % 10

    def rows(network: IResNet, seen: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        with torch.no_grad():
            x = (torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2).float() - 127.5) / 127.5
            return functional.normalize(network(x)[0]).numpy()

    def accuracy(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
        sides = ((one[first], one[second]), (two[first], two[second]))
        return 100 * cross_resolution(*sides, same, folds).mean

    large = rows(trunk, images)
    degraded = rows(trunk, [btnet_ext.degrade(image, 7) for image in images])
    small = rows(branch, [btnet_ext.resize(image, (14, 14)) for image in images])
    whole = {"112&112": accuracy(large, large)}
    of_trunk = {**whole, "112&7": accuracy(large, degraded), "7&7": accuracy(degraded, degraded)}
    of_branch = {**whole, "112&14": accuracy(large, small), "14&14": accuracy(small, small)}
    assert len({*of_trunk.values(), *of_branch.values()}) == 5, "accuracies that do not tell these apart"
    held = HeldOut(faces, Fabric(accelerator="cpu", devices=1), pairs=100, seed=5)
    for found, expected in ((held.measure(trunk, None, [7]), of_trunk), (held.measure(branch, trunk, [7]), of_branch)):
        assert found == pytest.approx({f"held out {name}": value for name, value in expected.items()})


def test_memory_of_many_images() -> None:
    labels = np.repeat(np.arange(500), 20)  # all pairs of 10,000 images: 400 MB of indices
    tracemalloc.start()
    draw_pairs(labels, 6000, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


def test_identities_are_of_the_first_source_alone(tmp_path: Path) -> None:
    """Of ten there, five are in another source, too; what comes with them, and in which order, does not matter."""
    first = write_faces(tmp_path / "first", identities=10, images=2)
    second = write_folder(tmp_path / "second", {f"{n:03d}/{i}.png": png(n) for n in range(5, 12) for i in (0, 1)})
    more = write_folder(tmp_path / "more", {f"{n}/{i}.png": png(i) for n in ("000_", "zzz") for i in (0, 1)})
    faces = Faces([first, second], [more], shared_identities=True)
    chosen = choose_identities(faces, 3)
    assert len(set(chosen)) == 3
    assert set(chosen) < {f"{number:03d}" for number in range(5)}
    assert choose_identities(Faces([first, second, more], shared_identities=True), 3) == chosen
    assert choose_identities(faces, 2) == chosen[:2]
    with pytest.raises(ValueError, match="4 of 5 identities cannot be held out"):
        choose_identities(faces, 4)
