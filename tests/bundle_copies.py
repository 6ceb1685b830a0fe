"""Copies of a bundle for tests to damage, each file of it a file of the copy's own."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx


class BundleCopy:
    """A copy of a bundle that may be changed; model.json can be brought in line with the changed files."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.path = folder
        shutil.copytree(source, folder)

    @property
    def model(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.path / "model.json").read_text())
        return read

    def write_model(self, model: Any) -> None:
        (self.path / "model.json").write_text(json.dumps(model))

    def edit_model(self, change: Callable[[dict[str, Any]], object]) -> None:
        model = self.model
        change(model)
        self.write_model(model)

    def write_file(self, name: str, content: bytes) -> None:
        """Write a file and list its size and hash, as a bundle that was made that way would."""
        (self.path / name).write_bytes(content)
        entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.edit_model(lambda model: model["files"].update({name: entry}))

    def edit_graph(self, change: Callable[[onnx.ModelProto], object], name: str = "branch_7.onnx") -> None:
        graph = onnx.load(self.path / name, load_external_data=False)
        change(graph)
        self.write_file(name, graph.SerializeToString())
