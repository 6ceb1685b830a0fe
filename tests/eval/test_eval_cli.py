"""The command btnet-eval: every subcommand on small sets of stand-in faces, through a real bundle and an ONNX file."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import png, write_images, write_labeled
from sessions import result_of
from test_datasets_lfw import PEOPLE, TWO_FOLDS

from btnet_eval import models
from btnet_eval.verification import accuracy
from btnet_ext import Bundle, Engine, resize
from bundle_copies import BundleCopy
from command_line import Call, without_module

SEED = 41


def test_verify(evaluate: Call, small_bundle: Path, onnx_file: Path, people: Path, table: Path) -> None:
    out = table.parent / "out"
    models = "-m", small_bundle, "-m", onnx_file, "--no-flip"
    code, said, err = evaluate("verify", table, "-i", people, *models, "--resolutions", "28,7", "-o", out)
    assert (code, err) == (0, [])
    result = result_of(said)
    assert result["command"][:2] == ["btnet-eval", "verify"]
    assert {str(table), str(people)} <= result["data"].keys()
    numbers = result["numbers"]
    assert list(numbers) == ["small", "colours"]
    rows = [line.split("\t") for line in table.read_text().splitlines()[1:]]
    engine = Engine(small_bundle)

    def rows_at(column: int) -> np.ndarray:
        from PIL import Image

        shown = [resize(np.asarray(Image.open(people / row[column])), (7, 7)) for row in rows]
        return engine.embed(shown)

    same, folds = [int(row[3]) for row in rows], [int(row[0]) for row in rows]
    assert numbers["small"]["7&7"]["mean"] == accuracy(rows_at(1), rows_at(2), same, folds).mean
    assert numbers["colours"]["28&28"]["mean"] > 0.8


def test_lfw_and_bin(evaluate: Call, onnx_file: Path, tmp_path: Path) -> None:
    names = [f"{name}/{name}_{number:04}.jpg" for name, count in PEOPLE.items() for number in range(1, count + 1)]
    images = write_images(tmp_path / "lfw", names)
    (images / names[0]).write_bytes(b"no image")
    (tmp_path / "pairs.txt").write_text(TWO_FOLDS, encoding="utf-8")
    options = "-m", onnx_file, "--resolutions", "112", "-o", tmp_path / "out"
    code, said, err = evaluate("verify", tmp_path / "pairs.txt", "-i", images, *options)
    assert code == 0
    assert err[0].startswith("warning: 1 problems with the data, the first one: ")
    assert "Ann_0001.jpg is not an image" in err[0]
    assert result_of(said)["problems"]["count"] == 1
    code, said, err = evaluate("verify", tmp_path / "pairs.txt", "-i", images, *options, "--strict")
    assert (code, said) == (1, "")
    assert "Ann_0001.jpg is not an image" in err[0]
    random = np.random.default_rng(SEED)
    encoded = [png(random.integers(0, 256, (112, 112, 3), np.uint8)) for _ in range(40)]
    (tmp_path / "faces.bin").write_bytes(pickle.dumps((encoded, [i % 2 == 0 for i in range(20)])))
    code, said, err = evaluate("verify", tmp_path / "faces.bin", *options)
    assert (code, err) == (0, [])
    result = result_of(said)
    assert list(result["numbers"]["colours"]) == ["112&112"]
    # The images are the same for other labels, and the file is not.
    (tmp_path / "faces.bin").write_bytes(pickle.dumps((encoded, [i % 2 == 1 for i in range(20)])))
    other = result_of(evaluate("verify", tmp_path / "faces.bin", *options)[1])["data"]
    of_file, of_images = (f"{tmp_path}/faces.bin{what}" for what in ("", ", images"))
    assert list(other) == list(result["data"]) == [of_file, of_images]
    assert other[of_file] != result["data"][of_file]
    assert other[of_images] == result["data"][of_images]


def test_mixed(evaluate: Call, onnx_file: Path, people: Path, table: Path, tmp_path: Path) -> None:
    options = table, "-i", people, "-m", onnx_file, "-o", tmp_path / "out"
    code, said, err = evaluate("mixed", *options, "--seed", 3)
    assert (code, err) == (0, [])
    assert list(result_of(said)["numbers"]["measured"]["colours"]) == ["low", "mid", "high", "all"]
    assert result_of(said)["numbers"]["seed"] == 3
    count = 2 * (len(table.read_text().splitlines()) - 1)
    (tmp_path / "mine.csv").write_text(",".join(["9"] * count))
    code, said, _ = evaluate("mixed", *options, "--protocol", f"mine={tmp_path}/mine.csv")
    result = result_of(said)
    assert result["numbers"]["resolutions"] == {"mine": [9, 9.0, 9]}
    assert f"{tmp_path}/mine.csv" in result["data"]
    code, _, err = evaluate("mixed", *options, "--protocol", "mine.csv")
    assert code == 2
    assert "--protocol must be NAME=FILE" in err[0]


def test_thresholds_that_compare_uses(
    evaluate: Call, small_bundle: Path, people: Path, table: Path, tmp_path: Path
) -> None:
    bundle = BundleCopy(small_bundle, tmp_path / "mine.btnet").path
    options = "-i", people, "-o", tmp_path / "out", "--far", "0.05"
    code, said, err = evaluate("thresholds", table, *options, "-m", bundle, "--copy", tmp_path / "copy.btnet")
    assert (code, err) == (0, [])
    measured = result_of(said)["numbers"]["small"]["far"]["0.05"]
    written = Bundle.open(tmp_path / "copy.btnet").metadata["thresholds"]
    assert written["flip"] is True
    assert len(written["far"]["0.05"]) == 13 * 14 / 2
    for pair, threshold in measured.items():
        expected = {"cosine": threshold["value"], "tar": threshold["tar"]}
        assert written["far"]["0.05"][pair] == expected
    assert not Bundle.open(bundle).metadata["thresholds"]
    code, said, _ = evaluate("thresholds", people, *options[2:], "-m", bundle, "--write", "--no-flip")
    assert code == 0
    assert Bundle.open(bundle).metadata["thresholds"]["flip"] is False
    assert result_of(said)["numbers"]["small"]["impostors"] == 6 * 2 * 5 * 2


def test_thresholds_are_written_into_bundles_only(
    evaluate: Call, onnx_file: Path, people: Path, table: Path, tmp_path: Path
) -> None:
    options = "thresholds", table, "-i", people, "-o", tmp_path / "out", "-m", onnx_file, "--write"
    code, _, err = evaluate(*options)
    assert (code, err) == (2, ["Invalid value: --write and --copy are for one bundle"])


def test_gains(evaluate: Call, onnx_file: Path, people: Path, table: Path, tmp_path: Path) -> None:
    _, said, _ = evaluate(
        "verify", table, "-i", people, "-m", onnx_file, "-o", tmp_path / "a", "--resolutions", "112,7"
    )
    file = said.strip().replace(".html", ".json")
    options = "--phi-hr", file, "--phi-mr", f"{file}:colours", "--phi-mm", file, "-o", tmp_path / "out"
    code, said, err = evaluate("gains", file, *options)
    assert (code, err) == (0, [])
    # A model against itself: nothing to gain.
    result = result_of(said)
    assert result["numbers"] == {"112&112": None, "112&7": None, "7&7": None}
    compared = [[role, f"{file}, colours"] for role in ("model", "phi_hr", "phi_mr", "phi_mm")]
    assert result["sections"][0]["rows"] == compared
    code, _, err = evaluate("gains", f"{file}:nobody", *options)
    assert code == 1
    assert "not nobody" in err[0]
    code, _, err = evaluate("gains", "colours", *options)
    assert (code, err) == (2, ["Invalid value: FILE.json must be FILE.json or FILE.json:NAME, got 'colours'"])


def test_own(evaluate: Call, small_bundle: Path, people: Path, tmp_path: Path) -> None:
    code, said, err = evaluate(
        "own", people, "-m", small_bundle, "-o", tmp_path / "out", "--sizes", "56,7", "--far", "0.05"
    )
    assert (code, err) == (0, [])
    assert "   56 px" in said
    assert [step["size"] for step in result_of(said)["numbers"]["steps"]["both reduced"]] == [56, 7]
    options = "--sizes", "56", "--far", "0.2", "--rejects", "0.3", "--pairs", "9", "--seed", "4"
    code, said, _ = evaluate("own", people, "-m", small_bundle, "-o", tmp_path / "out", *options)
    expected = {"sizes": [56], "far": 0.2, "rejects": 0.3, "pairs": 9, "seed": 4}
    assert result_of(said)["numbers"]["options"] == expected
    code, _, err = evaluate("own", people, "-m", small_bundle, "-o", tmp_path / "out", "--far", "2")
    assert (code, err) == (1, ["far must be above 0 and below 1, not 2.0"])


def test_identify(evaluate: Call, onnx_file: Path, people: Path, tmp_path: Path) -> None:
    options = "-m", onnx_file, "-o", tmp_path / "out", "--resolutions", "112,14", "--gallery-images", "2"
    code, said, err = evaluate("identify", people, *options)
    assert (code, err) == (0, [])
    result = result_of(said)
    assert result["sections"][0]["rows"] == [[4, 8, 8, 8]]
    assert list(result["numbers"]["colours"]) == ["112&112", "112&14", "14&14"]


def test_survface_tinyface_and_scface(
    evaluate: Call, small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("gallery", "mated_probe"):
        names = [f"{person}.jpg" for person in range(3)]
        write_images(tmp_path / "survface" / kind, names)
        write_labeled(
            tmp_path / "survface" / f"{kind}_img_ID_pairs.mat", {f"{kind}_set": names}, {f"{kind}_ids": [1, 2, 3]}
        )
    write_images(tmp_path / "survface" / "unmated_probe", ["9.jpg"])
    sets = {"gallery_match": "Gallery_Match", "probe": "Probe"}
    for kind, folder in sets.items():
        names = [f"{person}.jpg" for person in range(3)]
        write_images(tmp_path / "tinyface" / folder, names)
        what = kind.partition("_")[0]
        write_labeled(
            tmp_path / "tinyface" / f"{kind}_img_ID_pairs.mat", {f"{what}_set": names}, {f"{what}_ids": [1, 2, 3]}
        )
    write_images(tmp_path / "tinyface" / "Gallery_Distractor", ["d.jpg"])
    mugshots = [f"{person:03}_frontal.jpg" for person in (1, 60)]
    write_images(
        tmp_path / "scface", [*mugshots, *(f"{p:03}_cam1_{distance}.jpg" for p in (1, 60) for distance in (1, 2, 3))]
    )
    normalized = []

    def opened(path: Path, **options: Any) -> models.Model:
        normalized.append(options["normalize"])
        return open_model(path, **options)

    open_model = models.open_model
    monkeypatch.setattr(models, "open_model", opened)
    for name in ("survface", "tinyface", "scface"):
        code, said, err = evaluate(name, tmp_path / name, "-m", small_bundle, "-o", tmp_path / "out")
        assert (code, err) == (0, []), name
        assert "small" in result_of(said)["numbers"]
    assert normalized == [False, True, True], "SurvFace's program takes means of embeddings of any length"
    assert len(json.loads((tmp_path / "out" / "survface.json").read_text())["numbers"]["small"]) == 9
    code, said, _ = evaluate("scface", tmp_path / "scface", "-m", small_bundle, "-o", tmp_path / "out", "--fine-tuned")
    assert result_of(said)["sections"][0]["rows"] == [[1, 1, 1, 1]]


def test_templates(evaluate: Call, onnx_file: Path, people: Path, tmp_path: Path) -> None:
    meta = tmp_path / "meta"
    meta.mkdir()
    faces = [
        (f"{person}/{number}.png", 10 * place + number // 2)
        for place, person in enumerate("abcdef", 1)
        for number in range(4)
    ]
    (meta / "ijbc_face_tid_mid.txt").write_text("\n".join(f"{name} {template} 1" for name, template in faces))
    templates = sorted({template for _, template in faces})
    lines = [f"{a} {b} {int(a // 10 == b // 10)}" for a in templates for b in templates if a < b]
    (meta / "ijbc_template_pair_label.txt").write_text("\n".join(lines))
    options = "-i", people, "-m", onnx_file, "-o", tmp_path / "out", "--aligned", "--no-detector-score"
    code, said, err = evaluate("templates", meta, *options, "--resolutions", "112,7")
    assert (code, err) == (0, [])
    assert list(result_of(said)["numbers"]["measured"]["colours"]) == ["112&112", "112&7", "7&7", "112 vs 7"]
    given = result_of(said)["numbers"]["aggregation"]
    assert (given["detector_score"], given["norm_score"], given["flip"]) == (False, False, True)
    said = evaluate("templates", meta, *options, "--norm-score", "--no-flip")[1]
    given = result_of(said)["numbers"]["aggregation"]
    assert (given["detector_score"], given["norm_score"], given["flip"]) == (False, True, False)
    code, _, err = evaluate("templates", tmp_path, *options)
    assert code == 1
    assert "has neither ijbc_face_tid_mid.txt" in err[0]


def test_figures(evaluate: Call, small_bundle: Path, onnx_file: Path, people: Path, tmp_path: Path) -> None:
    out = "-o", tmp_path / "out"
    code, said, err = evaluate("upsampling", people, *out, "--resolutions", "56,28")
    assert (code, err) == (0, [])
    assert result_of(said)["numbers"]["curve"]["resolutions"] == [28, 56]
    code, said, err = evaluate("projection", people, *out, "-m", onnx_file, "--most", "6", "--seed", "5")
    assert (code, err) == (0, [])
    assert (result_of(said)["numbers"]["images"], result_of(said)["numbers"]["seed"]) == (6, 5)
    models = "-m", f"{small_bundle}@28", "-m", onnx_file
    face = people / "a" / "0.png"
    code, said, err = evaluate("features", face, *models)
    assert (code, err) == (0, [])
    assert "  prelu  PRelu 16 x 28 x 28" in said
    layers = said.splitlines()
    name = layers[layers.index("colours") + 1].split()[0]
    code, said, err = evaluate("features", face, *models, *out, "--layers", "prelu", "--layers", name)
    assert (code, err) == (0, [])
    assert [row["layer"] for row in result_of(said)["numbers"]["layers"]] == ["prelu", name]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["verify"], 2, "Missing argument"),
        (["identify", "faces", "-m", "m.onnx"], 2, "Missing option"),
        (["own", "faces", "-o", "out", "-m", "nobody"], 1, "nobody"),
        (["own", "faces", "-o", "out", "--mean", "1,2"], 2, "--mean must be three numbers with commas, got '1,2'"),
        (["identify", "faces", "-o", "o", "--gallery-images", "0"], 2, "--gallery-images"),
        (["features", __file__, "-m", "res50@large"], 2, "--model must be MODEL or MODEL@R"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_wrong_command_lines(arguments: list[str], code: int, message: str, evaluate: Call) -> None:
    status, out, err = evaluate(*arguments)
    assert (status, out, len(err)) == (code, "", 1)
    assert message in err[0]


def test_other_options(evaluate: Call, onnx_file: Path, people: Path, tmp_path: Path) -> None:
    options = "-m", onnx_file, "-o", tmp_path / "out"
    code, _, err = evaluate("identify", people, *options, "--resolutions", "112;14")
    assert (code, len(err)) == (2, 1)
    assert "--resolutions must be numbers from 1 to 112 with commas, each once, got '112;14'" in err[0]
    code, _, err = evaluate("identify", tmp_path / "nowhere", *options)
    assert code == 1
    assert err == [f"{tmp_path}/nowhere does not exist"]


@pytest.mark.parametrize("sizes", ["0", "-1", "113", "7,7", "", "abc", "99999999999999999999"])
def test_sizes_that_cannot_be(sizes: str, evaluate: Call, people: Path, onnx_file: Path, tmp_path: Path) -> None:
    code, _, err = evaluate("own", people, "-m", onnx_file, "-o", tmp_path / "out", f"--sizes={sizes}")
    assert code == 2
    assert f"--sizes must be numbers from 1 to 112 with commas, each once, got {sizes!r}" in err[0]


@pytest.mark.filterwarnings("ignore::btnet_ext.DemonstrationWeights")
def test_what_is_wrong_is_said_before_the_work(
    evaluate: Call, people: Path, table: Path, onnx_file: Path, small_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    measure = "thresholds", table, "-i", people, "-m", small_bundle
    for arguments, message in (
        (("own", people, "-m", onnx_file, "-o", tmp_path / "file"), "--out must be a folder, and"),
        (("own", people, "-m", onnx_file, "-o", tmp_path / "file" / "x"), "cannot be made: Not a directory"),
        (
            ("own", people, "-m", onnx_file, "-o", tmp_path / "o", "--device", "cuda"),
            "ONNX models run on the CPU in f32",
        ),
        ((*measure, "-o", tmp_path / "o", "--write", "--copy", tmp_path / "b"), "give --write or --copy, not both"),
        ((*measure, "-o", tmp_path / "o", "--copy", tmp_path / "file"), "exists: it is not overwritten"),
        ((*measure, "-o", tmp_path / "o", "--write", "--resolutions", "7"), "for all sizes of the bundle: leave"),
        (
            ("survface", people, "-m", onnx_file, "-o", tmp_path / "o"),
            "has neither gallery_img_ID_pairs.mat nor positive_pairs_names.mat: give their folder with --lists",
        ),
    ):
        code, _, err = evaluate(*arguments)
        assert (code, len(err)) == (2, 1)
        assert message in err[0]
    code, _, err = evaluate("thresholds", table, "-i", people, "-m", "res50", "-o", tmp_path / "o", "--write")
    assert (code, len(err)) == (1, 1)
    assert err[0].endswith("res50.btnet came with the package and is not changed: give --copy")
    assert list((tmp_path / "o").iterdir()) == []


def test_problems_are_told_of_what_fails_in_the_end(evaluate: Call, onnx_file: Path, tmp_path: Path) -> None:
    for person in "ab":
        (tmp_path / "bad" / person).mkdir(parents=True)
        (tmp_path / "bad" / person / "0.jpg").write_bytes(b"no image")
    code, _, err = evaluate("own", tmp_path / "bad", "-m", onnx_file, "-o", tmp_path / "out")
    assert (code, len(err)) == (1, 2)
    assert err[0].startswith("warning: 2 problems with the data")
    assert "none of 2 images can be decoded" in err[1]


def test_what_cannot_be_read_is_left_out(evaluate: Call, people: Path, onnx_file: Path, tmp_path: Path) -> None:
    shutil.copytree(people, tmp_path / "people")
    (tmp_path / "people" / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    code, said, err = evaluate("identify", tmp_path / "people", "-m", onnx_file, "-o", tmp_path / "out")
    assert code == 0
    assert "gone.png cannot be read" in err[0]
    assert result_of(said)["problems"]["count"] == 1


@pytest.mark.parametrize("module", ["sklearn", "matplotlib"])
@pytest.mark.parametrize(
    ("arguments", "status"), [(["identify", "faces", "-o", "out", "-m", "x.onnx"], 1), (["--help"], 0)]
)
def test_missing_extra(
    module: str, arguments: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = without_module(module, "btnet_eval", "btnet-eval", *arguments)
    assert result.returncode == status
    if status:
        assert result.stderr == f"btnet-eval: {module} is not installed: pip install 'btnet-ext[eval]'\n"
    else:
        assert "verify" in result.stdout


def test_help_needs_nothing() -> None:
    code = (
        "import sys; sys.argv = ['btnet-eval', '--help']\n"
        "from btnet_eval.cli import main\n"
        "heavy = {'numpy', 'openvino', 'matplotlib', 'torch'}\n"
        "try:\n    main()\nfinally:\n    print(sorted(heavy & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]"
