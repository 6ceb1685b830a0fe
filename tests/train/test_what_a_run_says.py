"""What the folders of a trunk and its branches say: accuracies of held-out people, and what a network costs."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tiny_training import schedule, tensors, values
from torch import Tensor
from train_command import HOW, SHORT

from btnet_train.cli import main
from btnet_train.networks import IResNet
from btnet_train.validation import HeldOut

BRANCHES = {"stages.branch.resolutions": "[14, 7]", **schedule("branch", 0.4)}
AVERAGES = ("running_mean", "running_var", "num_batches_tracked")


class Measured(NamedTuple):
    """A run, and with which trunk the networks of each resolution were measured."""

    folder: Path
    trunks: dict[int, list[dict[str, Tensor] | None]]

    def result(self, side: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{side}/result.json").read_text())
        return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, eight: Path) -> Measured:
    """A run of btnet with branches for 14 and 7 px, four of the eight people held out."""
    measured = Measured(tmp_path_factory.mktemp("measured"), {})
    measure = HeldOut.measure

    def recording(self: HeldOut, network: IResNet, trunk: IResNet | None, sides: Sequence[int]) -> Any:
        state = None if trunk is None else {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
        measured.trunks.setdefault(network.resolution, []).append(state)
        return measure(self, network, trunk, sides)

    sets = [f"--set={key}={value}" for key, value in BRANCHES.items()]
    command = ["fit", "btnet", "--data", eight, "--out", measured.folder, "--held-out", 4, *HOW, *SHORT, *sets]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HeldOut, "measure", recording)
        patch.setattr(sys, "argv", ["btnet-train", *map(str, command)])
        with pytest.raises(SystemExit) as caught:
            main()
    assert caught.value.code in (0, None)
    return measured


def test_branches_are_measured_with_the_trunk_that_they_join(run: Measured) -> None:
    assert run.trunks[112] == [None]
    state = tensors(run.folder / "112/network.safetensors")
    joined = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    for side in (14, 7):
        (given,) = run.trunks[side]
        assert given is not None
        assert all(torch.equal(given[name], tensor) for name, tensor in joined.items())


@pytest.mark.parametrize(
    ("side", "columns"),
    [
        (112, {"112&112", "112&14", "112&7", "14&14", "7&7"}),  # at the sizes that the branches are for
        (14, {"112&112", "112&14", "14&14"}),
        (7, {"112&112", "112&7", "7&7"}),
    ],
)
def test_the_last_accuracies_are_in_both_files(run: Measured, side: int, columns: set[str]) -> None:
    result = run.result(side)
    names = {f"held out {column}" for column in columns}
    assert {name for name in result if name.startswith("held out")} == names
    assert all(values(run.folder / str(side), name) == [result[name]] for name in names)
    assert result["held out 112&112"] == run.result(112)["held out 112&112"]


# res18 with 8, 16, 32 and 64 channels, in thousands where a convolution comes more than once:
# 112 px: stem 2,709.504; stage 1 7,225.344 + 3 x 1,806.336 + 200.704; each of the others 2 x 3,612.672 + 1,806.336
#   + 100.352; FC 50.176.
# 7 px, nothing but the FC layer smaller than 7x7: 49 x (216 + 4 x 576 + 1,152 + 3 x 2,304 + 128 + 4,608 + 3 x 9,216
#   + 512 + 18,432 + 3 x 36,864 + 2,048) + 50,176.
@pytest.mark.parametrize(("side", "macs"), [(112, 43_000_832), (7, 8_603_224)])
def test_multiply_accumulates_counted_by_hand(run: Measured, side: int, macs: int) -> None:
    assert run.result(side)["gmacs"] == pytest.approx(macs / 1e9, rel=1e-9)


@pytest.mark.parametrize("side", [14, 7])
def test_parameters_of_a_branch_are_with_the_layers_of_its_trunk(run: Measured, side: int) -> None:
    """As of any network, without the averages of BatchNorm."""
    state = tensors(run.folder / f"{side}/network.safetensors")
    learned = [tensor.numel() for name, tensor in state.items() if not name.endswith(AVERAGES)]
    assert run.result(side)["parameters"] == sum(learned)
