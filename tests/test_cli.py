"""The command btnet: what it writes and prints, and that every error is one line on stderr."""

import errno
import io
import json
import os
import pty
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from btnet_ext import Engine, cli, sources
from command_line import COMMAND, Call, run
from limited_files import limited_files

SEED = 20


def picture(width: int, height: int, seed: int = SEED) -> Image.Image:
    pixels = np.random.default_rng([seed, width, height]).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, format_: str = "png") -> bytes:
    file = io.BytesIO()
    image.save(file, format_)
    return file.getvalue()


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder in it and a zip archive, and files that are no images."""
    folder = tmp_path_factory.mktemp("crops")
    (folder / "a" / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    picture(5, 9).save(folder / "a" / "deep" / "9.png")
    picture(20, 20).save(folder / "a" / "20.BMP")
    picture(60, 41).convert("L").save(folder / "a" / "60.png")
    picture(7, 7).save(folder / "b.webp", lossless=True)
    picture(7, 7).save(folder / ".hidden" / "c.png")
    (folder / "notes.txt").write_text("no image")
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.writestr("z/30.png", encoded(picture(30, 29)))
        archive.writestr("z/14.png", encoded(picture(14, 14)))
        archive.writestr("z/", "")
        archive.writestr("README.md", "no image")
        archive.writestr("__MACOSX/z/._14.png", "no image")
    return folder


# By hand: sorted by path, at any depth; the longer side decides, rounded up to 7, 14, 28 or 112.
FOLDER = [("a/20.BMP", 28), ("a/60.png", 112), ("a/deep/9.png", 14), ("b.webp", 7)]
ARCHIVE = [("more.zip/z/14.png", 14), ("more.zip/z/30.png", 112)]


def pictures_of(crops: Path) -> list[Image.Image]:
    """The images of FOLDER and ARCHIVE, not read by what is tested."""
    grey = picture(60, 41).convert("L").convert("RGB")
    return [picture(20, 20), grey, picture(5, 9), picture(7, 7), picture(14, 14), picture(30, 29)]


def test_embed(crops: Path, small_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    result = run("embed", crops, crops / "more.zip", crops / "b.webp", "-o", out, "--model", small_bundle)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{out}: 7 of 7 images embedded\n"
    expected = [(str(crops / name), resolution) for name, resolution in [*FOLDER, *ARCHIVE, FOLDER[-1]]]
    engine = Engine(small_bundle)
    with np.load(out) as written:
        assert set(written) == {"embeddings", "paths", "resolutions", "model", "digest"}
        assert written["paths"].tolist() == [name for name, _ in expected]
        assert written["resolutions"].tolist() == [resolution for _, resolution in expected]
        assert written["resolutions"].dtype == np.int32
        assert written["embeddings"].dtype == np.float32
        images = [*pictures_of(crops), picture(7, 7)]
        np.testing.assert_allclose(written["embeddings"], engine.embed(images), atol=1e-5)
        assert (str(written["model"]), str(written["digest"])) == ("small", engine.bundle.digest)
    assert list(tmp_path.iterdir()) == [out]


def test_embed_options(call: Call, crops: Path, small_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    options = ["--resolutions", "14,28", "--indicator", "min", "--rounding", "floor", "--threads", "1"]
    options += ["--hint", "latency", "--device", "auto", "--flip", "--no-normalize", "--batch-size", "2"]
    status, _, err = call("embed", crops, "-o", out, "--model", small_bundle, *options)
    assert (status, err) == (0, [])
    images = pictures_of(crops)[: len(FOLDER)]
    engine = Engine(small_bundle, resolutions=[14, 28], indicator="min", rounding="floor")
    expected = engine.embed(images, flip=True, normalize=False)
    with np.load(out) as written:
        assert written["resolutions"].tolist() == [14, 28, 14, 14]
        np.testing.assert_allclose(written["embeddings"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_unreadable_images(call: Call, small_bundle: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "faces", tmp_path / "out.npz"
    folder.mkdir()
    good = encoded(picture(60, 60), "jpeg")
    (folder / "1-truncated.jpg").write_bytes(good[: len(good) // 2])
    (folder / "2-good.jpg").write_bytes(good)
    (folder / "3-text.png").write_text("no image")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(folder / "4-deep.png")
    (folder / "5-empty.png").touch()
    (folder / "6-broken-link.png").symlink_to("nowhere")
    (tmp_path / "notes.txt").write_text("no image")
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        archive.writestr("damaged.bmp", encoded(picture(8, 8), "bmp"))
        archive.writestr("good.bmp", encoded(picture(8, 8, seed=1), "bmp"))
    stored = (tmp_path / "faces.zip").read_bytes()
    (tmp_path / "faces.zip").write_bytes(stored.replace(picture(8, 8).tobytes()[:3][::-1], b"???", 1))
    paths = [folder, tmp_path / "notes.txt", tmp_path / "faces.zip"]
    status, stdout, err = call("embed", *paths, "-o", out, "--model", small_bundle)
    assert status == 1
    assert stdout == f"{out}: 2 of 9 images embedded\n"
    bad = ["1-truncated.jpg", "3-text.png", "4-deep.png", "5-empty.png", "6-broken-link.png"]
    named = [*(folder / name for name in bad), tmp_path / "notes.txt", tmp_path / "faces.zip/damaged.bmp"]
    assert len(err) == len(named)
    for line, path in zip(err, named, strict=True):
        assert line.startswith(f"{path} ")
    with np.load(out) as written:
        assert written["paths"].tolist() == [str(folder / "2-good.jpg"), str(tmp_path / "faces.zip/good.bmp")]
        images = [Image.open(folder / "2-good.jpg"), picture(8, 8, seed=1)]
        np.testing.assert_allclose(written["embeddings"], Engine(small_bundle).embed(images), atol=1e-5)


def test_nothing_readable(call: Call, small_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    out = tmp_path / "out.npz"
    out.write_bytes(b"older results")
    status, stdout, err = call("embed", tmp_path / "a.png", "-o", out, "--model", small_bundle)
    assert (status, stdout) == (1, "")
    assert err == [f"{tmp_path}/a.png is not an image that Pillow can read", "none of 1 images can be read"]
    assert out.read_bytes() == b"older results"
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "out.npz"}


def test_errors_of_the_system_name_their_file(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "faces/secret")

    monkeypatch.setattr(cli, "find_all", fail)
    assert call("embed", "faces", "-o", "out.npz") == (1, "", ["faces/secret: Permission denied"])


def test_a_full_disk(call: Call, crops: Path, small_bundle: Path, tmp_path: Path) -> None:
    Engine(small_bundle)  # its networks are in the cache
    out = tmp_path / "out.npz"
    out.write_bytes(b"older results")
    with limited_files(1000):
        status, stdout, err = call("embed", crops, "-o", out, "--model", small_bundle)
    assert (status, stdout) == (1, "")
    assert err == [f"{out} cannot be saved (File too large); what was there before is intact"]
    assert out.read_bytes() == b"older results"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_empty_folder_among_others(call: Call, crops: Path, small_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = [tmp_path / "empty", crops / "b.webp", "-o", tmp_path / "out.npz", "--model", small_bundle]
    assert call("embed", *arguments) == (
        0,
        f"{tmp_path}/out.npz: 1 of 1 images embedded\n",
        [f"warning: no images in {tmp_path}/empty"],
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # The model does not exist in these: a wrong path is found before anything is loaded.
        (["b.png", "none.png", "-o", "o.npz", "--model", "none"], "none.png does not exist"),
        (["b.png", "none.zip", "-o", "o.npz", "--model", "none"], "none.zip does not exist"),
        (["b.png", "damaged.zip", "-o", "o.npz", "--model", "none"], "damaged.zip is not a zip archive"),
        (["empty", "-o", "o.npz", "--model", "none"], "no images in empty: expected files ending in .bmp"),
        (["b.png", "-o", "none/o.npz", "--model", "none"], "none/o.npz cannot be saved (No such file or directory)"),
        (["b.png", "-o", "b.png/o.npz", "--model", "none"], "b.png/o.npz cannot be saved (Not a directory)"),
        (["b.png", "-o", "folder.npz", "--model", "none"], "folder.npz exists and is no file"),
        (["b.png", "-o", "device.npz", "--model", "none"], "/dev/null exists and is no file"),
        (["b.png", "-o", "o.npz", "--model", "none"], "there is no model 'none'"),
        (["b.png", "-o", "o.npz", "--model", "./none"], "none"),
        (["b.png", "-o", "o.npz", "--device", "tpu"], "device"),
        (["b.png", "-o", "o.npz", "--precision", "f8"], "precision"),
        (["b.png", "-o", "o.npz", "--hint", "speed"], "hint"),
        (["b.png", "-o", "o.npz", "--indicator", "median"], "indicator"),
        (["b.png", "-o", "o.npz", "--rounding", "up"], "rounding"),
        (["b.png", "-o", "o.npz", "--resolutions", "7,9"], "9"),
    ],
)
def test_embed_errors(
    arguments: list[str],
    message: str,
    call: Call,
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(9, 9).save("b.png")
    Path("damaged.zip").write_bytes(b"PK")
    Path("empty").mkdir()
    Path("folder.npz").mkdir()
    Path("device.npz").symlink_to("/dev/null")
    before = sorted(Path().iterdir())
    model = [] if "--model" in arguments else ["--model", small_bundle]
    status, stdout, err = call("embed", *arguments, *model)
    assert (status, stdout, len(err)) == (1, "", 1)
    assert message in err[0]
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command"),
        (["nonsense"], "No such command 'nonsense'"),
        (["--nonsense"], "No such option"),
        (["embed"], "Missing argument"),
        (["embed", "a.png"], "Missing option"),
        (["embed", "-o", "a.png", "b.png", "c.png"], "--out must end in .npz, got 'a.png'"),
        (["embed", "a.png", "-o", "o.npz", "--resolutions", "7;14"], "--resolutions must be numbers"),
        (["embed", "a.png", "-o", "o.npz", "--threads", "0"], "--threads"),
        (["embed", "a.png", "-o", "o.npz", "--threads", "many"], "--threads"),
        (["embed", "a.png", "-o", "o.npz", "--batch-size", "0"], "--batch-size"),
        (["info"], "Missing argument"),
        (["models", "extra"], "unexpected extra argument"),
    ],
)
def test_usage(arguments: list[str], message: str, call: Call) -> None:
    status, stdout, err = call(*arguments)
    assert (status, stdout, len(err)) == (2, "", 1)
    assert message in err[0]


def test_interrupt(
    call: Call, crops: Path, small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "embed", interrupted)
    arguments = [crops, "-o", tmp_path / "out.npz", "--model", small_bundle]
    assert call("embed", *arguments) == (130, "", [])
    assert list(tmp_path.iterdir()) == []


def test_progress_on_a_terminal(crops: Path, small_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").touch()
    paths = [str(crops), str(tmp_path / "bad.png"), "-o", str(tmp_path / "o.npz"), "--model", str(small_bundle)]
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        with os.fdopen(theirs, "wb", buffering=0) as stderr:
            result = subprocess.run(
                [COMMAND, "embed", *paths],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | {"TERM": "xterm", "COLUMNS": "60"},
            )
        shown = terminal.read(65536).decode()
    assert result.returncode == 1
    assert "embedding" in shown
    assert "100%" in shown
    assert f"btnet: {tmp_path}/bad.png is not an image that Pillow can read" in shown


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [(str(n), np.zeros((10, 10), np.uint8)) for n in range(7)]
    assert [len(batch) for batch in cli._batches(images, 3)] == [3, 3, 1]
    monkeypatch.setattr(cli, "_BATCH_BYTES", 200)
    batches = list(cli._batches(images, 3))
    assert [len(batch) for batch in batches] == [2, 2, 2, 1]
    assert [name for batch in batches for name, _ in batch] == [str(n) for n in range(7)]


def test_decoding_runs_a_bounded_way_ahead() -> None:
    drawn: list[int] = []

    def draw() -> Iterator[sources.Source]:
        for n in range(50):
            drawn.append(n)
            yield sources.Source(str(n), partial(encoded, picture(2, 2, seed=n)))

    images = sources.decode_all(draw(), ahead=5)
    for n, (source, pixels) in enumerate(images):
        assert source.name == str(n)
        np.testing.assert_array_equal(pixels, np.asarray(picture(2, 2, seed=n)))
        assert drawn == list(range(min(n + 6, 50)))
    assert n == 49


def test_pillow_says_nothing_of_its_own(crops: Path, small_bundle: Path, tmp_path: Path) -> None:
    samples_per_pixel = struct.pack("<HHI", 277, 3, 1)
    tiff = encoded(picture(8, 8), "tiff").replace(samples_per_pixel + b"\3", samples_per_pixel + b"\xff")
    (tmp_path / "odd.tif").write_bytes(tiff)
    paths = [tmp_path / "odd.tif", crops / "b.webp"]
    result = run("embed", *paths, "-o", tmp_path / "out.npz", "--model", small_bundle)
    assert result.returncode == 1
    assert result.stderr == f"btnet: {tmp_path}/odd.tif is not an image that Pillow can read\n"


def test_info(call: Call, small_bundle: Path) -> None:
    status, stdout, err = call("info", small_bundle, "--json", "--verify")
    assert (status, err) == (0, [])
    shown = json.loads(stdout)
    written = json.loads((small_bundle / "model.json").read_text())
    for key in ("name", "arch", "width", "dim", "resolutions", "input", "selection", "license", "training"):
        assert shown[key] == written[key]
    assert shown["bytes"] == sum(file.stat().st_size for file in small_bundle.iterdir())
    assert shown["precisions"] == ["f32"]
    assert shown["verified"] is True
    status, stdout, err = call("info", small_bundle)
    assert (status, err) == (0, [])
    lines = dict(line.split(maxsplit=1) for line in stdout.splitlines())
    assert lines["resolutions"] == "7, 14, 28, 112"
    assert lines["digest"] == shown["digest"]
    assert "verified" not in lines
    assert lines["thresholds"] == "none"


def test_info_of_a_bundle_with_thresholds(call: Call) -> None:
    """Of hundreds of numbers, it says what they are for."""
    status, stdout, err = call("info", "res50")
    assert (status, err) == (0, [])
    lines = dict(line.split(maxsplit=1) for line in stdout.splitlines())
    sizes = "5, 7, 8, 10, 14, 15, 20, 28, 29, 40, 56, 79, 112"
    assert lines["thresholds"] == f"for {sizes} px, at false-accept rates of 0.01, 0.001, 0.0001"
    assert max(map(len, stdout.splitlines())) < 1000


def test_a_photo_is_turned_as_its_exif_orientation_says(call: Call, small_bundle: Path, tmp_path: Path) -> None:
    """As other libraries' readers of files do it; with 6, the first row of pixels belongs on the right."""
    upright = Image.fromarray(np.random.default_rng(31).integers(0, 256, (9, 14, 3), np.uint8))
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    assert call("embed", tmp_path, "-o", tmp_path / "out.npz", "--model", small_bundle)[0] == 0
    first, second = np.load(tmp_path / "out.npz")["embeddings"]
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!", b"Exif\0\0II*\0", b"xx"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_damaged_exif_is_as_none(kind: str, exif: bytes, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.random.default_rng(32).integers(0, 256, (9, 14, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, exif=exif, lossless=True)
    with caplog.at_level("INFO", "btnet_ext.sources"):
        decoded = sources.decode(sources.Source("a face", file.getvalue))
    np.testing.assert_array_equal(decoded, pixels)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("a face has damaged EXIF, and is taken as it lies: ")


def test_info_of_a_damaged_bundle(call: Call, small_bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.btnet"
    damaged.mkdir()
    for file in small_bundle.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    with (damaged / "weights.bin").open("r+b") as weights:
        weights.seek(4097)
        byte = weights.read(1)
        weights.seek(4097)
        weights.write(bytes([byte[0] ^ 1]))
    assert call("info", damaged)[0] == 0
    status, stdout, err = call("info", damaged, "--verify")
    assert (status, stdout, len(err)) == (1, "", 1)
    assert "weights.bin" in err[0]
    for wrong in (tmp_path / "none.btnet", "none"):
        status, stdout, err = call("info", wrong)
        assert (status, stdout, len(err)) == (1, "", 1)
        assert "none" in err[0]


def test_models(call: Call, crops: Path, small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("BTNET_HOME", str(home))
    status, stdout, err = call("models")
    assert (status, err) == (0, [])
    assert f"  {home}  (not there)\n" in stdout
    home.mkdir()
    (home / "tiny.btnet").symlink_to(small_bundle)
    status, stdout, _ = call("models")
    assert f"tiny  {home}/tiny.btnet\n" in stdout
    assert f"\n  {home}\n" in stdout
    status, stdout, _ = call("info", "tiny")
    assert (status, stdout.splitlines()[0].split()) == (0, ["name", "small"])
    out = tmp_path / "out.npz"
    assert call("embed", crops / "b.webp", "-o", out, "--model", "tiny")[0] == 0
    assert out.exists()


@pytest.mark.parametrize("arguments", [["--help"], ["embed", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import atexit, sys; sys.argv = ['btnet', *{arguments!r}]; "
        "atexit.register(lambda: print({'numpy', 'PIL', 'openvino', 'btnet_ext._core'} & set(sys.modules))); "
        "from btnet_ext.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    *shown, loaded = result.stdout.splitlines()
    assert loaded == "set()"
    assert "btnet" in shown[0]
