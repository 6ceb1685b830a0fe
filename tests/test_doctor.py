"""btnet doctor: what it says of this machine, and of installations that do not work."""

import subprocess
import sys
from pathlib import Path

import pytest

from command_line import Call, run


def report_of(stdout: str) -> dict[str, str]:
    """The lines of `btnet doctor` by their names, which take up 14 columns."""
    return {line[:14].rstrip(): line[14:] for line in stdout.splitlines()}


def test_doctor(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "network").write_bytes(bytes(1_500_000))
    result = run("doctor", BTNET_CACHE=str(cache), BTNET_HOME=str(tmp_path / "home"), BTNET_SIMD="plain")
    assert (result.returncode, result.stderr) == (0, "")
    report = report_of(result.stdout)
    assert report["OpenVINO"] == "2026.4.1, as needed"
    assert report["resampler"] == "plain"
    assert report["device cpu"].startswith("usable: f32, ")
    assert report["device cuda"].startswith("not usable: ")
    assert report["cache"] == f"{cache}, writable, 1.5 MB"
    assert report["model store"].startswith(f"{tmp_path}/home, made when needed; ")
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Feat")))
    features = report["features"].split()
    assert ("avx2" in features) == (" avx2 " in flags)
    assert ("avx512_bf16" in features) == (" avx512_bf16 " in flags)


def test_doctor_with_a_wrong_simd(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTNET_SIMD", "avx1024")
    status, stdout, err = call("doctor")
    assert (status, len(err)) == (1, 1)
    assert "avx1024" in err[0]
    assert "PROBLEM: " in report_of(stdout)["resampler"]


def test_doctor_with_unwritable_folders(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BTNET_CACHE", str(tmp_path / "file" / "cache"))
    status, stdout, _ = call("doctor")
    assert status == 0
    assert report_of(stdout)["cache"] == f"{tmp_path}/file/cache, not writable, 0.0 MB"


@pytest.fixture
def other_openvino(tmp_path: Path) -> str:
    """A folder with the skeleton of an OpenVINO of another version, for PYTHONPATH."""
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").touch()
    (tmp_path / "openvino-2025.0.0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: openvino\nVersion: 2025.0.0\n"
    (tmp_path / "openvino-2025.0.0.dist-info" / "METADATA").write_text(metadata)
    return str(tmp_path)


def test_another_openvino(other_openvino: str, small_bundle: Path, tmp_path: Path) -> None:
    wrong = "btnet needs openvino 2026.4.1, not 2025.0.0: pip install openvino==2026.4.1"
    result = run("doctor", PYTHONPATH=other_openvino)
    assert (result.returncode, result.stderr) == (1, f"btnet: OpenVINO: {wrong}\n")
    report = report_of(result.stdout)
    assert report["OpenVINO"] == f"PROBLEM: {wrong}"
    assert report["device cpu"].startswith("not usable")
    assert report["CPU"]
    arguments = [Path(__file__).parents[1] / "examples" / "faces", "-o", tmp_path / "out.npz", "--model", small_bundle]
    for command in (["embed", *arguments], ["info", small_bundle], ["models"]):
        result = run(*command, PYTHONPATH=other_openvino)
        assert (result.returncode, result.stdout, result.stderr) == (1, "", f"btnet: {wrong}\n")
    assert run("--version", PYTHONPATH=other_openvino).returncode == 0


@pytest.mark.parametrize(
    ("module", "name", "text"),
    [
        ("openvino", "OpenVINO", "btnet needs openvino 2026.4.1, and none is installed"),
        ("btnet_ext._core", "compiled part", "cannot be loaded"),
    ],
)
def test_doctor_where_something_is_missing(module: str, name: str, text: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv = ['btnet', 'doctor']; "
        "from btnet_ext.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert report_of(result.stdout)[name].startswith(f"PROBLEM: {text}")
    assert result.stderr.startswith(f"btnet: {name}: {text}")
    assert result.stderr.count("\n") == 1
