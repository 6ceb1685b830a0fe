"""btnet compare: a verdict by the thresholds of the bundle."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from btnet_ext import BundleError, Engine, InvalidImage, InvalidOption
from btnet_ext.compare import compare, pair_name
from bundle_copies import BundleCopy
from command_line import Call
from reference import faces

SEED = 61
IMAGES = faces([(60, 50), (12, 9)], SEED)  # the branches for 112 and 14


@pytest.fixture(scope="module")
def real(small_bundle: Path) -> Engine:
    return Engine(small_bundle, resolutions=[14, 112])


def with_thresholds(real: Engine, thresholds: Any) -> Any:
    """An engine whose bundle has these thresholds."""
    bundle = SimpleNamespace(path=Path("model.btnet"), metadata={"thresholds": thresholds})
    return SimpleNamespace(bundle=bundle, select=real.select, embed=real.embed)


def table(cosine: float, tar: float = 0.9, flip: bool = False) -> dict[str, Any]:
    return {"flip": flip, "far": {"0.001": {"112&14": {"cosine": cosine, "tar": tar}}}}


def test_names_of_pairs() -> None:
    assert pair_name(28, 112) == pair_name(112, 28) == "112&28"
    assert pair_name(7, 7) == "7&7"


@pytest.mark.parametrize("flip", [False, True])
def test_the_threshold_decides(real: Engine, flip: bool) -> None:
    a, b = real.embed(IMAGES, flip=flip, normalize=False).astype(np.float64)
    expected = float(a @ b / np.sqrt((a @ a) * (b @ b)))
    for offset, verdict in ((-1e-4, "same"), (1e-4, "different")):
        engine = with_thresholds(real, table(expected + offset, flip=flip))
        found = compare(engine, IMAGES)
        assert found.verdict == verdict
        assert found.similarity == pytest.approx(expected, abs=1e-6)
        assert (found.resolutions, found.far, found.tar) == ((112, 14), 1e-3, 0.9)
        assert compare(engine, IMAGES[::-1]).resolutions == (14, 112)


def test_too_small(real: Engine) -> None:
    engine = with_thresholds(real, table(-1, tar=0.49))
    assert compare(engine, IMAGES).verdict == "too small to tell"
    assert compare(engine, IMAGES, least_tar=0.4).verdict == "same"


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({}, "has no thresholds: `btnet-eval thresholds` measures"),
        ([1], "thresholds in .* must be"),
        ({"flip": True}, "thresholds in .* must be"),
        ({"flip": True, "far": {"low": {}}}, "thresholds in .* must be"),
        ({"flip": True, "far": {"0.001": {}}}, "no threshold for 112&14 at a false-accept rate of 0.001"),
        ({"flip": True, "far": {"0.001": {"112&14": {"cosine": 1}}}}, "thresholds in .* must be"),
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
        "threshold -1.000 at a false-accept rate of 0.001; 112 px and 14 px, where 90% are recognised\n"
    )
    status, out, _ = call("compare", *files, "--model", path, "--json")
    assert json.loads(out)["verdict"] == "same"
    assert call("compare", files[0], tmp_path / "c.png", "--model", path)[0] == 1
    (tmp_path / "c.png").write_text("no image")
    status, out, errors = call("compare", files[0], tmp_path / "c.png", "--model", path)
    assert (status, out) == (1, "")
    assert "c.png is not an image" in errors[0]
