"""The command btnet-eval: what is refused, and how; names of models; an interruption."""

import json
import shutil
from pathlib import Path

import pytest
from dataset_files import cells, write_images, write_labeled
from scipy.io import savemat
from sessions import result_of

from btnet_eval.cache import EmbeddingCache
from btnet_eval.models import open_model
from btnet_eval.onnx_network import Preprocessing
from btnet_ext import Engine
from bundle_copies import BundleCopy
from command_line import Call


# Those that end in a colon are typer's, whose words differ from version to version.
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "none.tsv"], "for 'PAIRS': "),
        (["verify", "{people}"], "for 'PAIRS': "),
        (["mixed", "none.bin"], "for 'PAIRS': "),
        (["templates", "none", "-i", "{people}"], "for 'META': "),
        (["survface", "{people}", "--lists", "none"], "for '--lists': "),
        (["features", "none.png"], "for 'IMAGE': "),
        (["own", "{people}", "--pairs", "0"], "for '--pairs': "),
        (["own", "{people}", "--rejects", "1.5"], "for '--rejects': "),
        (["projection", "{people}", "--seed", "-1"], "for '--seed': "),
        (["projection", "{people}", "--most", "0"], "for '--most': "),
        (["thresholds", "{table}", "-i", "{people}", "--far", "2"], "--far must be above 0 and below 1, got 2"),
        (["thresholds", "{people}", "-i", "{people}"], "--images is for a list of pairs, and {people} has images of"),
        (["mixed", "{table}", "--seed", "1", "--protocol", "a={table}"], "--seed is for resolutions that are drawn"),
        (["mixed", "{table}", "--protocol", "a={table}", "--protocol", "a={table}"], "--protocol a is given twice"),
        (["mixed", "{table}", "--protocol", "a=none.csv"], "--protocol a: none.csv is no file"),
        (["identify", "{people}", "-m", "none.onnx"], "--model none.onnx is no file"),
        (
            ["identify", "{people}", "-m", "{onnx}"],
            "two models are called colours: call one otherwise, --model NAME={onnx}",
        ),
    ],
)
def test_refused(
    arguments: list[str], message: str, evaluate: Call, people: Path, table: Path, onnx_file: Path, tmp_path: Path
) -> None:
    places = {"people": people, "table": table, "onnx": onnx_file}
    given = [argument.format(**places) for argument in arguments]
    code, out, err = evaluate(*given, "-o", tmp_path / "out", "-m", onnx_file)
    assert (code, out, len(err)) == (2, "", 1)
    assert message.format(**places) in err[0]


@pytest.mark.parametrize("argument", ["FILE.json", "--phi-hr", "--phi-mr", "--phi-mm"])
def test_gains_name_the_argument(argument: str, evaluate: Call, tmp_path: Path) -> None:
    (tmp_path / "a.json").touch()
    files = dict.fromkeys(["FILE.json", "--phi-hr", "--phi-mr", "--phi-mm"], f"{tmp_path}/a.json:x")
    for wrong, message in (
        ("a.txt", " must be FILE.json or FILE.json:NAME, got 'a.txt'"),
        ("b.json", ": b.json is no file"),
    ):
        model, *options = (files | {argument: wrong}).items()
        references = [part for option in options for part in option]
        code, _, err = evaluate("gains", model[1], *references, "-o", tmp_path / "out")
        assert code == 2
        assert err == [f"Invalid value: {argument}{message}"]


def test_options_of_onnx_models(
    evaluate: Call, small_bundle: Path, onnx_file: Path, people: Path, tmp_path: Path
) -> None:
    out = "-o", tmp_path / "out"
    message = ["Invalid value: --mean, --std and --color are for ONNX models: a bundle says itself what it is given"]
    for given in (("--mean", "1,2,3"), ("--std", "1,2,3"), ("--color", "bgr")):
        assert evaluate("identify", people, "-m", small_bundle, *out, *given) == (2, "", message)
    face = people / "a" / "0.png"
    assert evaluate("features", face, "-m", small_bundle, "--mean", "1,2,3") == (2, "", message)
    capitals = onnx_file.rename(onnx_file.with_name("COLOURS.ONNX"))
    code, said, err = evaluate("features", face, "-m", capitals, "--mean", "1,2,3")
    assert (code, err, said.splitlines()[0]) == (0, [], "COLOURS")


def test_options_of_models_reach_them(
    evaluate: Call, small_bundle: Path, onnx_file: Path, people: Path, tmp_path: Path
) -> None:
    options = "-o", tmp_path / "out", "--resolutions", "14"
    how = "--mean", "1,2,3", "--std", "4,5,6", "--color", "bgr"
    code, said, _ = evaluate("identify", people, "-m", onnx_file, *options, *how)
    assert code == 0
    expected = open_model(onnx_file, preprocessing=Preprocessing((1, 2, 3), (4, 5, 6), "bgr")).digest
    assert result_of(said)["models"]["colours"] == expected != open_model(onnx_file).digest
    for option, value, message in (
        ("--precision", "int8", "the bundle has no int8 graphs"),
        ("--device", "cuda:7", "'cuda:7'"),
    ):
        code, _, err = evaluate("identify", people, "-m", small_bundle, *options, option, value)
        assert (code, len(err)) == (1, 1)
        assert message in err[0]


def test_models_get_names(evaluate: Call, onnx_file: Path, people: Path, tmp_path: Path) -> None:
    """One file, in folders of which one has a = in its name."""
    other = tmp_path / "lr=1" / "colours.onnx"
    other.parent.mkdir()
    shutil.copy(onnx_file, other)
    models = "-m", other, "-m", f"second={onnx_file}", "-m", f"third={other}"
    code, said, err = evaluate("identify", people, *models, "-o", tmp_path / "out", "--resolutions", "14")
    assert (code, err) == (0, [])
    result = result_of(said)
    assert list(result["numbers"]) == list(result["models"]) == ["colours", "second", "third"]
    assert len({*result["models"].values()}) == 1


def test_models_of_other_branches(
    evaluate: Call, small_bundle: Path, onnx_file: Path, people: Path, tmp_path: Path
) -> None:
    options = "thresholds", people, "-m", onnx_file, "-m", small_bundle, "-o", tmp_path / "out", "--far", "0.01"
    code, _, err = evaluate(*options)
    assert (code, err) == (2, ["Invalid value: colours and small have other branches: give --resolutions"])
    code, said, err = evaluate(*options, "--resolutions", "14")
    assert (code, err) == (0, [])
    assert all(list(of_model["far"]["0.01"]) == ["14&14"] for of_model in result_of(said)["numbers"].values())


def test_written_thresholds_lose_no_embedding(evaluate: Call, small_bundle: Path, people: Path, tmp_path: Path) -> None:
    bundle = BundleCopy(small_bundle, tmp_path / "own.btnet").path
    options = "thresholds", people, "-m", bundle, "-o", tmp_path / "out", "--far", "0.01", "--write"
    assert evaluate(*options)[0] == 0
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "embeddings").iterdir()}
    assert len(kept) == 13
    assert evaluate(*options)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "embeddings").iterdir()} == kept


def test_thresholds_of_int8_are_not_written(
    evaluate: Call, small_bundle: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is embedded: btnet compare has f32 on the CPU."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("embedded")

    monkeypatch.setattr(EmbeddingCache, "rows", refuse)
    monkeypatch.setattr(Engine, "precision", "int8")
    options = "thresholds", people, "-m", small_bundle, "-o", tmp_path / "out"
    for wanted in (("--write",), ("--copy", tmp_path / "copy.btnet")):
        code, _, err = evaluate(*options, *wanted)
        assert (code, len(err)) == (1, 1)
        assert (
            "must be measured on the device cpu with precision f32, as btnet compare embeds, not on cpu with" in err[0]
        )


def test_interrupted(
    evaluate: Call, onnx_file: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EmbeddingCache, "rows", interrupt)
    code, said, err = evaluate("identify", people, "-m", onnx_file, "-o", tmp_path / "out")
    assert (code, said, err) == (130, "", ["interrupted; the same command goes on after what it has embedded"])


def test_survface_as_released(evaluate: Call, onnx_file: Path, tmp_path: Path) -> None:
    """Both test sets below one folder, the lists of 1:N in a third; and 1:1 alone."""
    release, names = tmp_path / "QMUL-SurvFace", [f"{person}.jpg" for person in range(3)]
    search, pairs = release / "Face_Identification_Test_Set", release / "Face_Verification_Test_Set"
    for kind in ("gallery", "mated_probe"):
        write_images(search / kind, names)
        file = release / "Face_Identification_Evaluation" / f"{kind}_img_ID_pairs.mat"
        write_labeled(file, {f"{kind}_set": names}, {f"{kind}_ids": [1, 2, 3]})
    write_images(search / "unmated_probe", ["9.jpg"])
    write_images(pairs / "verification_images", names)
    for kind, rows in (("positive", [names[:2]] * 2), ("negative", [names[1:]] * 2)):
        savemat(pairs / f"{kind}_pairs_names.mat", {f"{kind}_pairs_names": cells(rows)})
    options = "-m", onnx_file, "-o", tmp_path / "out"
    code, said, err = evaluate("survface", release, *options)
    assert (code, err) == (0, [])
    result = result_of(said)
    assert {"TPIR20 at FPIR 0.1", "TAR at FAR 0.1"} <= result["numbers"]["colours"]["one network"].keys()
    lists = {Path(name).name for name in result["data"] if name.endswith(".mat")}
    assert len(lists) == 4
    assert {f"{search}", f"{pairs}/verification_images"} <= result["data"].keys()
    shutil.rmtree(release / "Face_Identification_Evaluation")
    for folder in (release, pairs):
        code, said, err = evaluate("survface", folder, *options)
        assert (code, err) == (0, [])
        assert "TPIR20 at FPIR 0.1" not in json.dumps(result_of(said)["numbers"])
        assert "mean accuracy" in json.dumps(result_of(said)["numbers"])
