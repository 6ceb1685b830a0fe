"""btnet compare: a verdict by the thresholds of the bundle."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from btnet_ext import BundleError, Engine, InvalidImage, InvalidOption
from btnet_ext.compare import HALF_OCTAVES, compare, ladder, pair_name, pair_names
from bundle_copies import BundleCopy
from command_line import Call
from reference import faces

SEED = 61
SIZES = (5, 7, 8, 10, 14, 15, 20, 28, 29, 40, 56, 79, 112)
IMAGES = faces([(56, 50), (10, 9)], SEED)  # the branches for 112 and 14


@pytest.fixture(scope="module")
def real(small_bundle: Path) -> Engine:
    return Engine(small_bundle)


def with_thresholds(real: Engine, thresholds: Any, indicator: str = "max") -> Any:
    """An engine whose bundle has these thresholds."""
    metadata = {"thresholds": thresholds, "selection": {"indicator": indicator, "rounding": "ceil"}}
    bundle = SimpleNamespace(path=Path("model.btnet"), metadata=metadata)
    return SimpleNamespace(bundle=bundle, select=real.select, embed=real.embed)


def table(cosine: float, tar: float = 0.9, flip: bool = False, pair: str = "56&10") -> dict[str, Any]:
    """Thresholds of which only that of one pair can be met."""
    rows = {name: {"cosine": 2.0, "tar": 1.0} for name in pair_names(SIZES)}
    return {"flip": flip, "far": {"0.001": rows | {pair: {"cosine": cosine, "tar": tar}}}}


def test_names_of_pairs() -> None:
    assert pair_name(28, 112) == pair_name(112, 28) == "112&28"
    assert pair_names((7, 14)) == {"7&7", "14&7", "14&14"}


@pytest.mark.parametrize(
    ("rounding", "begin"),
    [("ceil", [8, 15, 29]), ("floor", [14, 28, 112]), ("near", [11, 22, 71])],
)
def test_the_ladder_crosses_no_branch(small_bundle: Path, rounding: str, begin: list[int]) -> None:
    """begin: the smallest size of every branch but the first, as docs/design.md has the rule for 7, 14, 28 and 112."""
    sizes = ladder(Engine(small_bundle, rounding=rounding))
    assert sizes == tuple(sorted({*HALF_OCTAVES, *begin}))
    for side in range(1, 200):
        judged = max((size for size in sizes if size <= side), default=sizes[0])
        assert np.searchsorted(begin, judged, side="right") == np.searchsorted(begin, side, side="right")


@pytest.mark.parametrize("flip", [False, True])
def test_the_threshold_decides(real: Engine, flip: bool) -> None:
    a, b = real.embed(IMAGES, flip=flip, normalize=False).astype(np.float64)
    expected = float(a @ b / np.sqrt((a @ a) * (b @ b)))
    for offset, verdict in ((-1e-4, "same"), (1e-4, "different")):
        engine = with_thresholds(real, table(expected + offset, flip=flip))
        found = compare(engine, IMAGES)
        assert found.verdict == verdict
        assert found.similarity == pytest.approx(expected, abs=1e-6)
        assert (found.resolutions, found.sizes, found.far, found.tar) == ((112, 14), (56, 10), 1e-3, 0.9)
        turned = compare(engine, IMAGES[::-1])
        assert (turned.resolutions, turned.sizes) == ((14, 112), (10, 56))


@pytest.mark.parametrize(
    ("side", "below", "above"),
    [
        (30, 29, 40),
        (29, 29, 29),
        (28, 28, 28),
        (27, 20, 28),
        (111, 79, 112),
        (112, 112, 112),
        (300, 112, 112),
        (3, 5, 5),
    ],
)
def test_a_face_between_two_sizes_has_the_higher_threshold(real: Engine, side: int, below: int, above: int) -> None:
    """One of 30 px goes to the branch for 112, and the threshold of 112 would let in many strangers."""
    images = faces([(side, side), (60, 60)], SEED)  # 60 is between 56 and 79
    cosines = {(below, 56): 0.1, (above, 56): 0.3, (below, 79): 0.4, (above, 79): 0.2}
    rows = {name: {"cosine": 9.0, "tar": 1.0} for name in pair_names(SIZES)}
    rows |= {pair_name(*sizes): {"cosine": cosine, "tar": 0.5 + cosine} for sizes, cosine in cosines.items()}
    engine = with_thresholds(real, {"flip": False, "far": {"0.001": rows}})
    found = compare(engine, images)
    expected = max(
        (rows[pair_name(*sizes)]["cosine"], sizes) for sizes in [(below, 56), (above, 56), (below, 79), (above, 79)]
    )
    assert (found.threshold, found.sizes) == expected
    assert found.tar == 0.5 + expected[0]


@pytest.mark.parametrize(("indicator", "size"), [("max", 20), ("min", 8), ("avg", 14)])
def test_the_size_is_the_bundles_indicator(small_bundle: Path, indicator: str, size: int) -> None:
    """Of 8 x 20 px."""
    engine = Engine(small_bundle, indicator=indicator)
    images: list[Any] = [*faces([(8, 20)], SEED), Image.fromarray(faces([(112, 112)], SEED)[0])]
    found = compare(with_thresholds(engine, table(0, pair=f"112&{size}"), indicator), images)
    assert found.sizes == (size, 112)
    if indicator == "min":
        with pytest.raises(InvalidOption, match="engine must select branches by 'max', the indicator of its bundle"):
            compare(with_thresholds(engine, table(0)), images)


def test_too_small(real: Engine) -> None:
    """Where one person is seldom recognised, a low similarity tells nothing; a high one is as rare among strangers."""
    for tar, verdict in ((0.49, "too small to tell"), (0.5, "different")):
        engine = with_thresholds(real, table(1.01, tar=tar))
        assert compare(engine, IMAGES).verdict == verdict
        assert compare(engine, IMAGES, least_tar=0.4).verdict == "different"
        assert compare(with_thresholds(real, table(-1, tar=tar)), IMAGES).verdict == "same"


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({}, "has no thresholds: `btnet-eval thresholds` measures"),
        ([1], "thresholds in .* must be"),
        ({"flip": True}, "thresholds in .* must be"),
        ({"flip": True, "far": {"low": {}}}, "thresholds in .* must be"),
        (
            {"flip": True, "far": {"0.001": {name: {"cosine": 1} for name in pair_names(SIZES)}}},
            "thresholds in .* must be",
        ),
        (
            {"flip": True, "far": {"0.001": {name: {"cosine": 1, "tar": 1} for name in pair_names((7, 14, 28, 112))}}},
            "every two of the sizes 5, 7, 8, 10, 14, 15, .* measures them anew",
        ),
    ],
)
def test_tables_that_do_not_serve(real: Engine, thresholds: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        compare(with_thresholds(real, thresholds), IMAGES)


def test_wrong_options(real: Engine) -> None:
    engine = with_thresholds(real, table(0))
    with pytest.raises(InvalidOption, match=r"far must be one of 0\.001, .* not 0\.5"):
        compare(engine, IMAGES, far=0.5)
    with pytest.raises(InvalidOption, match="least_tar must be from 0 to 1, not 2"):
        compare(engine, IMAGES, least_tar=2)
    with pytest.raises(InvalidOption, match="images must be two, not 1"):
        compare(engine, IMAGES[:1])
    with pytest.raises(InvalidImage):
        compare(engine, [IMAGES[0], np.zeros((0, 3, 3), np.uint8)])


def test_command(small_bundle: Path, tmp_path: Path, call: Call) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file, image in zip(files, IMAGES, strict=True):
        Image.fromarray(image).save(file)
    copy = BundleCopy(small_bundle, tmp_path / "copy.btnet")
    copy.edit_model(lambda model: model.update(thresholds=table(-1)))
    path = copy.path
    status, out, errors = call("compare", *files, "--model", path)
    assert (status, errors) == (0, [])
    assert out.startswith("same: similarity ")
    assert out.endswith(
        "threshold -1.000 at a false-accept rate of 0.001, measured at 56 px and 10 px, where 90% are recognised\n"
    )
    status, out, _ = call("compare", *files, "--model", path, "--json")
    found = json.loads(out)
    assert (found["verdict"], found["resolutions"], found["sizes"]) == ("same", [112, 14], [56, 10])
    # 90 % are recognised: less than is asked for.
    copy.edit_model(lambda model: model.update(thresholds=table(1.01)))
    status, out, _ = call("compare", *files, "--model", path, "--least-tar", 0.95)
    assert (status, out.partition(":")[0]) == (0, "too small to tell")
    status, _, errors = call("compare", *files, "--model", path, "--far", 0.5)
    assert (status, len(errors)) == (1, 1)
    assert "far must be one of" in errors[0]
    status, _, errors = call("compare", files[0], tmp_path / "c.png", "--model", path)
    assert (status, errors) == (1, [f"{tmp_path}/c.png cannot be read: No such file or directory"])
    (tmp_path / "c.png").write_text("no image")
    status, out, errors = call("compare", files[0], tmp_path / "c.png", "--model", path)
    assert (status, out) == (1, "")
    assert "c.png is not an image" in errors[0]
