"""What btnet uses of TensorRT is there, with these names and parameters, in tensorrt 11 and in tensorrt_rtx.

The stand-in has exactly the part that btnet uses, since btnet's tests run on it; here it is held against the modules.
"""

import enum
import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stand_in_tensorrt import Calls, make_stand_in

MADE_BY_US = ("Builder", "OnnxParser", "Runtime")  # their constructors are part of the API

# What tensorrt_bindings 11 imports from the libraries, which cannot be installed without a GPU's driver at hand.
SYMBOLS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry"),
    *("getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins"),
)
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


def needed(name: str) -> dict[str, dict[str, Any]]:
    """List what the stand-in has, in the form of tensorrt_surface.py, but each method with one signature."""
    stand_in = make_stand_in(name, "0.0", Calls())
    return {kind.__name__: _members(kind) for kind in vars(stand_in).values() if inspect.isclass(kind)}


def _members(kind: type) -> dict[str, Any]:
    if issubclass(kind, enum.Enum):
        return dict.fromkeys(kind.__members__, "value")
    found: dict[str, Any] = {}
    for name, member in vars(kind).items():
        if name.startswith("_") and not (name == "__init__" and kind.__name__ in MADE_BY_US):
            continue
        if inspect.isfunction(member):
            _, *parameters = inspect.signature(member).parameters.values()
            found[name] = [p.name + ("" if p.default is p.empty else "=") for p in parameters]
        else:
            found[name] = "property" if isinstance(member, property) else "value"
    return found


def accepts(signature: list[str], parameters: list[str]) -> bool:
    """Whether a call that fits `parameters` fits `signature`: the same names in order, then only optional ones."""
    given, more = signature[: len(parameters)], signature[len(parameters) :]
    same = [name.rstrip("=") for name in given] == [name.rstrip("=") for name in parameters]
    optional = all(there.endswith("=") for there, ours in zip(given, parameters, strict=False) if ours.endswith("="))
    return same and optional and all(name.endswith("=") for name in more)


def missing(found: dict[str, dict[str, Any]], wanted: dict[str, dict[str, Any]]) -> list[str]:
    wrong = []
    for kind, names in wanted.items():
        for name, ours in names.items():
            there = found.get(kind, {}).get(name)
            fits = (
                any(accepts(signature, ours) for signature in there or ()) if isinstance(ours, list) else there == ours
            )
            if not fits:
                wrong.append(f"{kind}.{name}: {ours}, but there is {there}")
    return wrong


def surface(module: str, **environment: str) -> dict[str, dict[str, Any]]:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    command = [sys.executable, str(Path(__file__).with_name("tensorrt_surface.py")), module]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    read: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return read


def test_tensorrt_rtx() -> None:
    assert missing(surface("tensorrt_rtx"), needed("tensorrt_rtx")) == []


@pytest.fixture(scope="module")
def tensorrt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The bindings of tensorrt 11, with libraries that have the symbols and nothing in them."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("stubs")
    source = folder / "stub.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    for library in LIBRARIES:
        name = f"lib{library}.so.11"
        subprocess.run([compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", source, "-o", folder / name], check=True)
    return surface("tensorrt_bindings", LD_LIBRARY_PATH=str(folder))


def test_tensorrt(tensorrt: dict[str, dict[str, Any]]) -> None:
    assert missing(tensorrt, needed("tensorrt")) == []


def test_what_differs_is_seen(tensorrt: dict[str, dict[str, Any]]) -> None:
    """The comparison is not an empty one: it finds what only tensorrt_rtx has, and parameters of other names."""
    only_rtx = missing(tensorrt, needed("tensorrt_rtx"))
    assert {line.split(":")[0] for line in only_rtx} == {
        "BuilderFlag.REQUIRE_USER_ALLOCATION",
        "ComputeCapability.SM75",
        "DynamicShapesKernelSpecializationStrategy.EAGER",
        "IBuilderConfig.num_compute_capabilities",
        "IBuilderConfig.set_compute_capability",
        "IRuntimeConfig.create_runtime_cache",
        "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
        "IRuntimeConfig.set_runtime_cache",
    }
    assert missing(tensorrt, {"IExecutionContext": {"execute_async_v3": ["stream"]}}) != []
    assert missing(tensorrt, {"IExecutionContext": {"execute_async_v3": []}}) != []
    assert missing(tensorrt, {"BuilderFlag": {"FP16": "value"}}) != [], "TensorRT 11 has dropped it"
