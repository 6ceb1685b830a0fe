"""The folder of a run: what its files are called, what it says of itself, and that only one training is in it.

RUN/run.json                  the recipe, the faces, the teacher, versions and machines
RUN/R/state.safetensors       where the training of resolution R stands, from which it is resumed
RUN/R/network.safetensors     the trained network, as `btnet-train export` and `load_checkpoint` take it
RUN/R/heads.safetensors       classifier and linear map to the teacher, for branches and for fine-tuning
RUN/R/result.json             images seen, seconds, parameters, the last validation
RUN/R/losses.csv, losses.png, tensorboard/
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from btnet_ext.bundle import describe_file
from btnet_ext.whole_files import locked, whole_file
from btnet_train.checkpoint import load_checkpoint
from btnet_train.errors import lost_processes
from btnet_train.export import write_bundle
from btnet_train.recipes import RecipeError
from btnet_train.trainer import STATE

NETWORK, HEADS, RESULT = "network.safetensors", "heads.safetensors", "result.json"


@contextmanager
def alone(fabric: Fabric, run: Path) -> Iterator[None]:
    """Make the folder of a run, and have it to these processes alone. Raises RecipeError where others train there."""

    def refuse() -> None:
        raise RecipeError(f"{run} is being trained by another process: wait for it, or give another --out")

    if not fabric.is_global_zero:
        yield
        return
    with locked(run / ".lock", refuse):  # not the folder itself, where targets and a trunk's outputs may be kept
        yield


@lost_processes()
def start_run(fabric: Fabric, run: Path, description: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
    """Write RUN/run.json, or check that the run that is there is the same one, if anything of it is trained yet.

    Raises RecipeError, OSError.
    """
    path = run / "run.json"
    plain = json.loads(json.dumps(description))
    environments = [environment]
    if path.exists() and any(any(run.glob(f"*/{name}")) for name in (STATE, RESULT)):
        before = _read_description(path)
        differing = [key for key in plain if before.get(key) != plain[key]]
        if differing:
            raise RecipeError(f"{run} is a run with another {', '.join(differing)}: give another --out")
        environments = [*before["environments"], environment]
    fabric.barrier()  # every process has read it, and refuses it alike
    if fabric.is_global_zero:
        write_json(path, {**plain, "environments": environments})
    fabric.barrier()


def write_model(
    run: Path,
    networks: Mapping[int, Path],
    name: str,
    license: str,  # noqa: A002 - the word of model.json
    description: Mapping[str, Any],
) -> Path:
    """Write the networks of a run as RUN/NAME.btnet, and return its path."""
    loaded = {resolution: load_checkpoint(path, resolution) for resolution, path in networks.items()}
    results = {
        str(resolution): _read_json(path.with_name(RESULT))
        for resolution, path in networks.items()
        if path.name == NETWORK and path.with_name(RESULT).exists()  # not what lies beside a trunk from elsewhere
    }
    training = {"recipe": description["recipe"], "faces": description["faces"], "results": results}
    return write_bundle(run / f"{name}.btnet", loaded, name=name, license=license, training=training, overwrite=True)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all. Raises OSError."""
    with whole_file(path) as append:
        append((json.dumps(data, indent=2) + "\n").encode())


def file_in(path: Path, name: str) -> Path:
    """Return a file, or that of this name in a folder."""
    return path / name if path.is_dir() else path


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(f"{path} is damaged: {error}") from error


def _read_description(path: Path) -> dict[str, Any]:
    description = _read_json(path)
    if not isinstance(description, dict) or not isinstance(description.get("environments"), list):
        raise RecipeError(f"{path} was not written by btnet-train: it does not say in which environments")
    return description


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file. Raises OSError."""
    return str(describe_file(path)["sha256"])
