"""The command btnet-eval in this process, and small sets for it."""

from pathlib import Path

import numpy as np
import pytest
from dataset_files import png

from btnet_eval import cli
from command_line import Call, in_process
from onnx_files import write_model

SEED = 41


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run the command in this process with a cache of its own, as `in_process`."""
    monkeypatch.setenv("BTNET_CACHE", str(tmp_path / "cache"))
    return in_process("btnet-eval", cli.main, monkeypatch, capsys)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six persons in folders, four images of 112 px each: a pattern of colours, and noise."""
    random = np.random.default_rng(SEED)
    folder = tmp_path_factory.mktemp("people")
    for person in "abcdef":
        (folder / person).mkdir()
        pattern = random.integers(0, 256, (4, 4, 3))
        for number in range(4):
            blocks = (pattern + random.normal(0, 60, (4, 4, 3))).clip(0, 255)
            pixels = np.kron(blocks, np.ones((28, 28, 1))).astype(np.uint8)
            (folder / person / f"{number}.png").write_bytes(png(pixels))
    return folder


@pytest.fixture
def table(people: Path, tmp_path: Path) -> Path:
    """Every pair of images of two persons next to each other in the alphabet, and every pair of one, in two folds."""
    names = sorted(path.relative_to(people).as_posix() for path in people.rglob("*.png"))
    lines = ["fold\tpath_a\tpath_b\tsame"]
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if ord(b[0]) - ord(a[0]) <= 1:
                lines.append(f"{len(lines) % 2}\t{a}\t{b}\t{int(a[0] == b[0])}")
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    return write_model(tmp_path / "colours.onnx")
