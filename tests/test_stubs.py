"""The committed btnet_ext/_core.pyi says what the compiled module has."""

import ast
import difflib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
STUB = ROOT / "python" / "btnet_ext" / "_core.pyi"

# The module can be imported only once _native has loaded OpenVINO. The generator forgets what os.PathLike is a path of.
GENERATE = """
import sys
from pathlib import Path
import btnet_ext._native, pybind11_stubgen
sys.argv = ['pybind11-stubgen', 'btnet_ext._core', '--exit-code', '-o', sys.argv[1]]
pybind11_stubgen.main()
stub = Path(sys.argv[-1], 'btnet_ext', '_core.pyi')
stub.write_text(stub.read_text().replace('os.PathLike |', 'os.PathLike[str] |'))
"""


def test_stub_is_up_to_date(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", GENERATE, tmp_path], check=True, capture_output=True, text=True)
    generated = tmp_path / "btnet_ext" / "_core.pyi"
    difference = "\n".join(
        difflib.unified_diff(_lines(STUB), _lines(generated), str(STUB), "what the module has", lineterm="")
    )
    assert not difference, (
        f'regenerate it, in {ROOT}: python -c "{GENERATE}" python && ruff format {STUB.relative_to(ROOT)}\n{difference}'
    )


def _lines(stub: Path) -> list[str]:
    """Return the lines of a stub without what a formatter may change."""
    return ast.unparse(ast.parse(stub.read_text())).splitlines()
