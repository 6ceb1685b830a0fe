"""What `btnet doctor` finds out about a machine and an installation; it works where btnet itself does not."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

from btnet_ext.errors import BackendUnavailable, InvalidOption

FEATURES = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512vbmi"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm"),
)
"""CPU features that matter to speed or precision, as Linux calls them."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    text: str
    is_problem: bool = False  # nothing can be embedded like this


def examine() -> list[Finding]:
    """Look at all that btnet depends on. What is missing or broken is a finding, not an exception."""
    findings = [
        Finding("btnet", _version("btnet-ext")),
        Finding("Python", f"{platform.python_version()} ({sys.executable})"),
        Finding("packages", ", ".join(f"{name} {_version(name)}" for name in ("numpy", "pillow", "typer"))),
        Finding("system", platform.platform()),
        *_processor(),
    ]
    try:
        from btnet_ext import _native
    except BackendUnavailable as error:
        findings.append(Finding("OpenVINO", str(error), is_problem=True))
        cpu = Finding("device cpu", "not usable without OpenVINO")
    except (ImportError, OSError) as error:
        findings.append(Finding("OpenVINO", _version("openvino")))
        findings.append(Finding("compiled part", f"cannot be loaded: {error}", is_problem=True))
        cpu = Finding("device cpu", "not usable without the compiled part")
    else:
        findings.append(Finding("OpenVINO", f"{_native.OPENVINO_VERSION}, as needed"))
        findings += [_cores(), _resampler()]
        try:
            findings += _folders()
        except OSError as error:
            findings.append(Finding("folders", f"cannot be looked at: {error}"))
        cpu = _cpu()
    return [*findings, cpu, _gpu()]


def _gpu() -> Finding:
    try:
        from btnet_ext import cuda

        gpu = cuda.find_gpu(0)
    except (BackendUnavailable, ImportError, OSError) as error:
        return Finding("device cuda", f"not usable: {error}")
    return Finding("device cuda", f"usable: {gpu.name}, compute capability {gpu.capability[0]}.{gpu.capability[1]}")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> list[Finding]:
    """Name and features, from the first processor of /proc/cpuinfo."""
    try:
        first, _, _ = Path("/proc/cpuinfo").read_text().partition("\n\n")
    except OSError as error:
        return [Finding("CPU", f"{platform.machine()}; features unknown: {error}")]
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = (fields.get("flags") or fields.get("Features", "")).split()
    features = [feature for feature in FEATURES if feature in flags]
    return [
        Finding("CPU", fields.get("model name", platform.machine())),
        Finding("features", " ".join(features) or "none that matter here"),
    ]


def _cpu() -> Finding:
    """Ask OpenVINO whether it has its CPU plugin, and what that can compute with."""
    try:
        openvino = import_module("openvino")
        devices = openvino.Core().available_devices
        capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (ImportError, RuntimeError) as error:  # RuntimeError is what OpenVINO's own errors are
        return Finding("device cpu", f"not usable: {error}", is_problem=True)
    bf16 = "bf16" if "BF16" in capabilities else "not bf16, which this CPU lacks"
    sees = ", ".join(devices)
    return Finding("device cpu", f"usable: f32, {bf16}, and int8 where a model has it; OpenVINO sees {sees}")


def _cores() -> Finding:
    from btnet_ext._native import core

    return Finding("cores", f"{core.available_cores()} for this process; the system has {os.cpu_count()} processors")


def _resampler() -> Finding:
    from btnet_ext._native import core

    try:
        return Finding("resampler", core.simd())
    except InvalidOption as error:
        return Finding("resampler", str(error), is_problem=True)


def _folders() -> list[Finding]:
    from btnet_ext import models
    from btnet_ext._native import core

    home, bundled = models.folders()
    cache = core.cache_folder()
    size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) / 1e6
    return [
        Finding("models", ", ".join(models.list()) or "none; see 'btnet models'"),
        Finding("model store", f"{home}, {_state(home)}; and {bundled}"),
        Finding("cache", f"{cache}, {_state(cache)}, {size:.1f} MB"),
    ]


def _state(folder: Path) -> str:
    """Say whether files can be made in a folder, which itself may yet have to be made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        return "not writable"
    return "writable" if existing == folder else "made when needed"
