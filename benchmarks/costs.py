"""What the networks of an architecture cost on paper: multiply-accumulates, stage by stage, and parameters.

    python benchmarks/costs.py [--arch res50] [--width 1.0]

Nothing is measured: the figures are the same everywhere. PyTorch is imported by the functions, so that whoever calls
them in a child has none of its threads. Writes results/costs.json and a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import common
from btnet_train.topology import CANONICAL, UNITS
from tables_speed import stage_macs as stage_table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from btnet_train.networks import IResNet

STAGES = {"conv1": "stem", "layer1": "stage 1", "layer2": "stage 2", "layer3": "stage 3", "layer4": "stage 4"}
"""Parts of a network by the first part of a layer's name; the FC layer is the last."""
DIM = 512
RESOLUTIONS = (112, 28, 14, 7)
"""Of the networks that the table has: the paper's."""


def stage_macs(network: IResNet) -> dict[str, int]:
    """Multiply-accumulates for one image in the stem, the four stages and the FC layer.

    Counted from the shapes that the layers see, unlike `mac_count`, which works them out; the sums are the same.
    """
    import torch
    from torch import nn

    from btnet_train.accounting import mac_count

    macs = {**dict.fromkeys(STAGES.values(), 0), "FC": 0}

    def count(name: str, layer: nn.Conv2d | nn.Linear, output: Tensor) -> None:
        macs[STAGES.get(name.partition(".")[0], "FC")] += output.numel() * layer.weight[0].numel()

    hooks = [
        layer.register_forward_hook(lambda layer, _, output, name=name: count(name, layer, output))
        for name, layer in network.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    device = network.fc.weight.device
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, network.resolution, network.resolution, device=device))
    for hook in hooks:
        hook.remove()
    if sum(macs.values()) != mac_count(network):
        raise RuntimeError(f"stages have {sum(macs.values())} multiply-accumulates, the network {mac_count(network)}")
    return macs


def costs(arch: str, width: float, dim: int, resolutions: Sequence[int]) -> dict[str, dict[str, Any]]:
    """By resolution: GMACs in all and by stage, parameters, and those that a branch adds to the trunk."""
    import torch

    from btnet_train.accounting import branch_parameter_count, parameter_count
    from btnet_train.networks import IResNet

    found = {}
    for resolution in resolutions:
        with torch.device("meta"):
            network = IResNet(arch, width, resolution, dim)
        stages = stage_macs(network)
        trunk = resolution == CANONICAL
        found[str(resolution)] = {
            "gmacs": sum(stages.values()) / 1e9,
            "gmacs_by_stage": {stage: macs / 1e9 for stage, macs in stages.items()},
            "parameters": parameter_count(network),
            "own_parameters": parameter_count(network) if trunk else branch_parameter_count(network),
        }
    return found


def main() -> None:
    """Count, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=list(UNITS), default="res50", help="(default: res50)")
    parser.add_argument("--width", type=float, default=1.0, help="multiplies the channels 64 to 512 (default: 1)")
    options = parser.parse_args()
    try:
        found = costs(options.arch, options.width, DIM, RESOLUTIONS)
    except ValueError as error:
        parser.error(str(error))
    settings = {"arch": options.arch, "width": options.width, "dim": DIM}
    print(common.write("costs", {"settings": settings, "costs": found}))
    print(stage_table(common.load("costs")))


if __name__ == "__main__":
    main()
