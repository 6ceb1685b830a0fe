"""Models by name, those that come with the package among them, and the warning about weights for demonstration."""

import os
import shutil
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from btnet_ext import DemonstrationWeights, Engine, ModelNotFound, models
from bundle_copies import BundleCopy


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of models that come with the package, for this test an empty one, beside an empty $BTNET_HOME."""
    monkeypatch.setattr(models, "__file__", str(tmp_path / "package" / "models.py"))
    monkeypatch.setenv("BTNET_HOME", str(tmp_path / "home"))
    folder = tmp_path / "package" / "models"
    folder.mkdir(parents=True)
    (tmp_path / "home").mkdir()
    return folder


def demonstration(source: Path, folder: Path, value: Any = True, name: str = "small") -> Path:
    copy = BundleCopy(source, folder)
    copy.edit_model(lambda model: model.update(name=name, license="LicenseRef-x", training={"demonstration": value}))
    return copy.path


def test_a_users_model_takes_precedence(bundled: Path, small_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(small_bundle, bundled / "res50.btnet")
    (bundled / "LICENSE.md").write_text("text")
    assert models.list() == ["res50"]
    assert models.path("res50") == bundled / "res50.btnet"
    own = shutil.copytree(small_bundle, tmp_path / "home" / "res50.btnet")
    assert models.list() == ["res50"]
    assert models.path("res50") == own
    assert Engine("res50", resolutions=[7]).bundle.path == own


def test_a_path_below_home(small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no shell has expanded it, as in a file of settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.btnet").symlink_to(small_bundle)
    assert models.locate("~/mine.btnet") == tmp_path / "mine.btnet"


def test_a_folder_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelNotFound, match=r"there is no model 'plain' \(known: .*\), for the folder write \./plain: put"
    ):
        models.locate("plain")
    with pytest.raises(ModelNotFound, match=r"there is no model 'other' \(known: [^)]*\): put"):
        models.locate("other")


def test_the_package_says_what_its_weights_may_be_used_for() -> None:
    """The licence lies beside the models, in the package that is installed, and its metadata names it."""
    folder = models.folders()[1]
    text = (folder / "LICENSE.md").read_text()
    for part in ("research", "CelebA", "UTKFace", "MobileFaceNet", "Apache"):
        assert part in text
    about = metadata.metadata("btnet-ext")
    assert about["License-Expression"] == "Apache-2.0 AND LicenseRef-btnet-weights-research-use"
    assert set(about.get_all("License-File") or []) == {"LICENSE", "python/btnet_ext/models/LICENSE.md"}


def test_warning(small_bundle: Path, tmp_path: Path) -> None:
    model = demonstration(small_bundle, tmp_path / "a.btnet", name="demo 1")
    with pytest.warns(DemonstrationWeights) as caught:
        engine = Engine(model, resolutions=[7])
    (warning,) = caught
    message = str(warning.message)
    assert "'demo 1'" in message
    assert "'LicenseRef-x'" in message
    assert "\n" not in message
    assert warning.filename == __file__, "it points at the line that made the engine"
    assert engine.embed([np.zeros((7, 7, 3), np.uint8)]).shape == (1, 512)


@pytest.mark.parametrize("value", [False, None, 1, "true", {}])
def test_no_warning(small_bundle: Path, tmp_path: Path, value: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Engine(demonstration(small_bundle, tmp_path / "a.btnet", value), resolutions=[7])
    assert caught == []


@pytest.mark.parametrize("training", [None, [], "demonstration", True, ["demonstration"]])
def test_training_may_hold_anything(small_bundle: Path, tmp_path: Path, training: Any) -> None:
    copy = BundleCopy(small_bundle, tmp_path / "a.btnet")
    copy.edit_model(lambda model: model.update(training=training))
    assert Engine(copy.path, resolutions=[7]).dim == 512
    copy.edit_model(lambda model: model.pop("training"))
    assert Engine(copy.path, resolutions=[7]).dim == 512


ENGINES = """
import sys, warnings
warnings.simplefilter("always")
from btnet_ext import Engine
for path in sys.argv[1:]:
    Engine(path, resolutions=[7], threads=1)
"""


def test_once_a_process(small_bundle: Path, tmp_path: Path) -> None:
    """Whatever Python's filters would let through again; another model has a warning of its own."""
    first = demonstration(small_bundle, tmp_path / "a.btnet", name="first")
    second = demonstration(small_bundle, tmp_path / "b.btnet", name="second")
    arguments: list[str | Path] = [sys.executable, "-c", ENGINES, first, first, second, first]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stderr.count("DemonstrationWeights") == 2
    assert done.stderr.count("'first'") == 1
    assert done.stderr.count("'second'") == 1


def test_where_warnings_are_errors(small_bundle: Path, tmp_path: Path) -> None:
    model = demonstration(small_bundle, tmp_path / "a.btnet", name="demo 2")
    for _ in range(2):
        with pytest.raises(DemonstrationWeights):
            Engine(model, resolutions=[7])


def test_warning_of_the_command(small_bundle: Path, tmp_path: Path) -> None:
    """One line on stderr that begins as all do, and the command goes on."""
    model = demonstration(small_bundle, tmp_path / "a.btnet")
    faces = Path(__file__).parents[1] / "examples" / "faces"
    arguments: list[str | Path] = ["embed", faces, "--model", model, "-o", tmp_path / "out.npz"]
    command = [sys.executable, "-m", "btnet_ext.cli", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("btnet: warning: the weights of 'small' are for demonstration only")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "out.npz").is_file()
