"""`cmake --install`, `find_package(btnet)` and examples/cpp_embed, against the embeddings that Python gets."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from btnet_ext import Engine
from command_line import succeed
from reference import faces

ROOT = Path(__file__).parents[1]
SEED = 71


@pytest.fixture(scope="module")
def consumer(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the example outside the repository, as somebody else's project would be."""
    source = tmp_path_factory.mktemp("consumer") / "cpp_embed"
    shutil.copytree(ROOT / "examples" / "cpp_embed", source)
    succeed("cmake", "-S", source, "-B", source / "build", f"-DCMAKE_PREFIX_PATH={installed}")
    succeed("cmake", "--build", source / "build")
    return source / "build" / "cpp_embed"


def run(consumer: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(part) for part in (consumer, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={"HOME": str(consumer.parent)})


def test_only_public_headers_are_installed(installed: Path) -> None:
    headers = sorted(path.name for path in (installed / "include" / "btnet").iterdir())
    assert headers == sorted(path.name for path in (ROOT / "csrc" / "include" / "btnet").iterdir())
    assert not list(installed.rglob("*.so*"))


def test_equals_python(consumer: Path, small_bundle: Path, tmp_path: Path) -> None:
    images = faces([(5, 7), (12, 9), (25, 20), (112, 112), (90, 200)], SEED)
    files = [tmp_path / f"{index}.ppm" for index in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    done = run(consumer, small_bundle, *files)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    engine = Engine(small_bundle)
    assert [row[0] for row in rows] == [str(file) for file in files]
    assert [int(row[1]) for row in rows] == engine.select(images).tolist() == [7, 14, 28, 112, 112]
    embeddings = np.array([row[2:] for row in rows], np.float64)
    np.testing.assert_allclose(embeddings, engine.embed(images), rtol=0, atol=1e-6)


def test_errors_are_one_line(consumer: Path, small_bundle: Path, tmp_path: Path) -> None:
    good, bad, cut = tmp_path / "good.ppm", tmp_path / "bad.ppm", tmp_path / "cut.ppm"
    Image.fromarray(faces([(9, 9)], SEED)[0]).save(good)
    bad.write_bytes(b"no image")
    cut.write_bytes(good.read_bytes()[:-1])
    for bundle, image, named in (
        (tmp_path / "nothing", good, "nothing"),
        (small_bundle, tmp_path / "missing.ppm", "missing.ppm"),
        (small_bundle, bad, "bad.ppm"),
        (small_bundle, cut, "cut.ppm"),
    ):
        done = run(consumer, bundle, good, image)
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert named in line


def test_openvino_of_another_version_is_refused(installed: Path, tmp_path: Path) -> None:
    other = tmp_path / "openvino"
    other.mkdir()
    (other / "OpenVINOConfig.cmake").write_text("set(OpenVINO_FOUND TRUE)\n")
    (other / "OpenVINOConfigVersion.cmake").write_text('set(PACKAGE_VERSION "2025.1.0")\n')
    command = ["cmake", "-S", ROOT / "examples" / "cpp_embed", "-B", tmp_path / "build"]
    command += [f"-DCMAKE_PREFIX_PATH={installed}", f"-DOpenVINO_DIR={other}"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode != 0
    assert "2026.4.1" in done.stderr
