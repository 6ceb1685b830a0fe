"""What an intact bundle says of itself; a hostile one gets `BundleError`, in one line that names the file."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from btnet_ext import Bundle, BundleError, Engine, InvalidOption
from bundle_copies import BundleCopy

SEED = 41


@pytest.fixture
def copy(small_bundle: Path, tmp_path: Path) -> BundleCopy:
    return BundleCopy(small_bundle, tmp_path / "copy.btnet")


def refuse(path: Path, *parts: str) -> None:
    """Expect that a bundle is refused in one line which has all the parts, by Bundle and by Engine alike."""
    for read in (Bundle.open, Engine):
        with pytest.raises(BundleError) as caught:
            read(path)
        message = str(caught.value)
        assert "\n" not in message
        for part in parts:
            assert part in message


def test_properties(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    model = json.loads((small_bundle / "model.json").read_text())
    assert bundle.path == small_bundle
    assert (bundle.name, bundle.arch, bundle.width, bundle.dim) == ("small", "res18", 0.25, 512)
    assert (bundle.resolutions, bundle.canonical, bundle.license) == ((7, 14, 28, 112), 112, "CC0-1.0")
    assert bundle.precisions == ("f32",)
    assert bundle.metadata == model
    assert "small.btnet" in repr(bundle)
    assert "res18" in repr(bundle)
    bundle.verify()


def test_digest_is_that_of_model_json(small_bundle: Path) -> None:
    digest = hashlib.sha256((small_bundle / "model.json").read_bytes()).hexdigest()
    assert Bundle.open(small_bundle).digest == digest


@pytest.mark.parametrize("path", [None, 5, ["small.btnet"]])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(InvalidOption, match="path must"):
        Bundle.open(path)


@pytest.mark.parametrize("as_path", [str, Path, os.fsencode])
def test_any_kind_of_path(small_bundle: Path, as_path: Callable[[Path], Any]) -> None:
    assert Bundle.open(as_path(small_bundle)).name == "small"


def test_a_relative_path_stays_what_it_was(small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small_bundle.parent)
    opened = [Bundle.open(small_bundle.name), Engine(small_bundle.name, resolutions=[7]).bundle]
    monkeypatch.chdir(tmp_path)
    for bundle in opened:
        assert bundle.path == small_bundle
        bundle.verify()


def test_no_bundle_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("missing", "file", "empty", "file/below", "loop", "x" * 300):
        refuse(tmp_path / name, name)


def test_folder_whose_name_is_not_utf8(small_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"gr\xfc\xdfe.btnet")
    copy = BundleCopy(small_bundle, folder)
    assert Bundle.open(folder).path == folder
    assert Engine(folder, resolutions=[7]).bundle.path == folder
    (folder / "weights.bin").unlink()
    with pytest.raises(BundleError, match=r"weights\.bin"):
        Bundle.open(copy.path)


def test_missing_files(copy: BundleCopy) -> None:
    for name in [*copy.model["files"], "model.json"]:
        file = copy.path / name
        content = file.read_bytes()
        file.unlink()
        refuse(copy.path, name)
        file.write_bytes(content)
    Bundle.open(copy.path)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"", lambda b: b[: len(b) // 2]])
def test_sizes_that_disagree(copy: BundleCopy, change: Callable[[bytes], bytes]) -> None:
    for name in copy.model["files"]:
        file = copy.path / name
        content = file.read_bytes()
        file.write_bytes(change(content))
        refuse(copy.path, name, "bytes")
        file.write_bytes(content)


@pytest.mark.parametrize("name", ["model.json", "weights.bin", "branch_14.onnx"])
def test_links_in_place_of_files(copy: BundleCopy, tmp_path: Path, name: str) -> None:
    (copy.path / name).rename(tmp_path / "elsewhere")
    (copy.path / name).symlink_to(tmp_path / "elsewhere")
    refuse(copy.path, name, "link")


@pytest.mark.parametrize("name", ["model.json", "weights.bin", "branch_14.onnx"])
def test_pipes_and_folders_in_place_of_files(copy: BundleCopy, name: str) -> None:
    (copy.path / name).unlink()
    os.mkfifo(copy.path / name)  # would make a careless reader wait for ever
    refuse(copy.path, name)
    (copy.path / name).unlink()
    (copy.path / name).mkdir()
    refuse(copy.path, name)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../secret", "..", ".", "", "sub/file", "./weights.bin", "a\\b", "w\0", "model.json", ".w", "a:w"],
)
def test_names_that_leave_the_bundle(copy: BundleCopy, name: str) -> None:
    (copy.path.parent / "secret").write_bytes(b"x")
    entry = {"bytes": 1, "sha256": "0" * 64}
    copy.edit_model(lambda model: model["files"].update({name: entry}))
    refuse(copy.path, "model.json")


def test_graphs_that_are_not_listed(copy: BundleCopy) -> None:
    for name in ("other.onnx", "../copy.btnet/branch_7.onnx", str(copy.path / "branch_7.onnx"), ""):
        model = copy.model
        model["graphs"]["f32"]["7"] = name
        copy.write_model(model)
        refuse(copy.path, "model.json", "graphs")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '{"format": 1,}', "{'format': 1}", '{"format": NaN}', "\ufeff", "{} {}", "//"]
)
def test_broken_json(copy: BundleCopy, text: str) -> None:
    (copy.path / "model.json").write_text(text)
    refuse(copy.path, "model.json")


def test_json_that_is_not_utf8(copy: BundleCopy) -> None:
    (copy.path / "model.json").write_bytes(b'{"format": 1, "name": "\xff"}')
    refuse(copy.path, "model.json")


@pytest.mark.parametrize("version", [0, 2, 1.5, "1", None, True, [1], -1, 2**70])
def test_unknown_format(copy: BundleCopy, version: Any) -> None:
    copy.edit_model(lambda model: model.update(format=version))
    refuse(copy.path, "model.json", "format")


ANY_TYPE: list[Any] = [None, True, 0, -1, 1.5, "text", [], {}, [[]], {"x": 1}, 2**31, 2**63, 2**64, 1e300, "\n"]
FIELDS: dict[str, tuple[Callable[[Any], bool], ...]] = {
    "name": (lambda value: isinstance(value, str),),
    "arch": (lambda value: isinstance(value, str),),
    "license": (lambda value: isinstance(value, str),),
    "width": (lambda value: isinstance(value, (int, float)) and value is not True and value > 0,),
    "dim": (lambda value: False,),  # none of ANY_TYPE is within bounds
    "canonical": (lambda value: False,),
    "resolutions": (lambda value: False,),
    "input": (lambda value: False,),
    "input.color": (lambda value: False,),
    "input.mean": (lambda value: False,),
    "input.std": (lambda value: False,),
    "input.filter": (lambda value: False,),
    "selection": (lambda value: False,),
    "selection.indicator": (lambda value: False,),
    "selection.rounding": (lambda value: False,),
    "graphs": (lambda value: False,),
    "graphs.f32": (lambda value: False,),
    "graphs.f32.7": (lambda value: False,),
    "files": (lambda value: False,),
    "files.weights\\.bin": (lambda value: False,),
    "files.weights\\.bin.bytes": (lambda value: False,),
    "files.weights\\.bin.sha256": (lambda value: False,),
}


def place(model: dict[str, Any], field: str) -> tuple[dict[str, Any], str]:
    """Return the object that holds a field, and the field's own name; a backslash keeps a dot."""
    *parents, last = (key.replace("\0", ".") for key in field.replace("\\.", "\0").split("."))
    for key in parents:
        model = model[key]
    return model, last


@pytest.mark.parametrize("field", FIELDS)
def test_wrong_types(copy: BundleCopy, field: str) -> None:
    (fine,) = FIELDS[field]
    original = copy.model
    for value in ANY_TYPE:
        if fine(value):
            continue
        model = json.loads(json.dumps(original))
        holder, key = place(model, field)
        holder[key] = value
        copy.write_model(model)
        # A wrong size is a complaint about the file itself, everything else about model.json.
        refuse(copy.path, "weights.bin" if key == "bytes" else "model.json")


@pytest.mark.parametrize("field", FIELDS)
def test_missing_fields(copy: BundleCopy, field: str) -> None:
    model = copy.model
    holder, key = place(model, field)
    del holder[key]
    copy.write_model(model)
    refuse(copy.path, key)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resolutions", [112, 28, 14, 7]),
        ("resolutions", [7, 7, 14, 28, 112]),
        ("resolutions", [7, 14, 28]),
        ("resolutions", [7, 14, 28, 112, 224]),
        ("resolutions", [7, 14, 112]),
        ("resolutions", [7.0, 14, 28, 112]),
        ("canonical", 28 * 3),
        ("input.mean", [127.5, 127.5]),
        ("input.mean", [1e39, 0, 0]),
        ("input.std", [127.5, 0, 127.5]),
        ("input.std", [127.5, -1, 127.5]),
        ("input.std", [127.5, 127.5, None]),
        ("input.color", "RGB"),
        ("input.filter", "nearest"),
        ("selection.rounding", "max"),
        ("files.weights\\.bin.sha256", "A" * 64),
        ("files.weights\\.bin.sha256", "0" * 63),
        ("dim", 0),
    ],
)
def test_values_out_of_range(copy: BundleCopy, field: str, value: Any) -> None:
    model = copy.model
    holder, key = place(model, field)
    holder[key] = value
    copy.write_model(model)
    refuse(copy.path, "model.json")


@pytest.mark.parametrize("field", ["format", "name", "dim", "width", "resolutions", "training"])
def test_deeply_nested_json(copy: BundleCopy, field: str) -> None:
    model = copy.model
    model[field] = "@"
    deep = "[" * 100_000 + "]" * 100_000
    (copy.path / "model.json").write_text(json.dumps(model).replace('"@"', deep))
    # In a process of its own, since what is to be shown is that it does not crash.
    code = (
        "import sys, btnet_ext\n"
        "try:\n    btnet_ext.Bundle.open(sys.argv[1]).metadata\n"
        "except btnet_ext.BundleError as error:\n    print('refused', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, copy.path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert "model.json" in done.stdout


def test_verify_finds_one_flipped_bit(copy: BundleCopy) -> None:
    for name in copy.model["files"]:
        file = copy.path / name
        content = file.read_bytes()
        for at in (0, len(content) // 2, len(content) - 1):
            damaged = bytearray(content)
            damaged[at] ^= 1
            file.write_bytes(damaged)
            with pytest.raises(BundleError, match=name.replace(".", r"\.")) as caught:
                Bundle.open(copy.path).verify()
            assert "\n" not in str(caught.value)
        file.write_bytes(content)
    Bundle.open(copy.path).verify()


def test_nothing_is_unpickled_or_imported(copy: BundleCopy) -> None:
    copy.edit_model(lambda model: model.update(training={"__reduce__": "os.system", "$ref": "file:///etc/passwd"}))
    assert Bundle.open(copy.path).metadata["training"]["__reduce__"] == "os.system"


FUZZ = """
import faulthandler, random, sys
from pathlib import Path
faulthandler.enable()
import btnet_ext
folder, file, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
generator = random.Random(seed)
original = (folder / file).read_bytes()
refused = 0
for trial in range(int(sys.argv[4])):
    damaged = bytearray(original)
    for _ in range(generator.choice((1, 1, 2, 8))):
        damaged[generator.randrange(len(damaged))] = generator.randrange(256)
    (folder / file).write_bytes(damaged)
    print(trial, end=" ", flush=True)
    try:
        bundle = btnet_ext.Bundle.open(folder)
        bundle.metadata
        if file.endswith(".onnx"):
            btnet_ext.Engine(folder, resolutions=[7], threads=1)
    except btnet_ext.BtnetError:
        refused += 1
print(f"refused {refused}")
"""


@pytest.mark.parametrize(("file", "trials"), [("model.json", 2000), ("branch_7.onnx", 60)])
def test_random_damage(copy: BundleCopy, tmp_path: Path, file: str, trials: int) -> None:
    """Whatever happens to a byte: it opens, or it is refused; in a process of its own, so that a crash is seen."""
    blocked = tmp_path / "no_cache"  # otherwise the first intact network would serve all others
    blocked.touch()
    environment = os.environ | {"BTNET_CACHE": str(blocked)}
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, copy.path, file, str(SEED), str(trials)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, f"seed {SEED}: trial {done.stdout[-30:]}\n{done.stderr[-1500:]}"
    refused = int(done.stdout.split()[-1])
    assert refused > 0
