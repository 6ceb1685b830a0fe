"""What the networks of an architecture cost on paper: multiply-accumulates, stage by stage, and parameters.

PyTorch is imported by the functions, so that whoever calls them in a child has none of its threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from btnet_train.topology import CANONICAL

if TYPE_CHECKING:
    from torch import Tensor, nn

    from btnet_train.networks import IResNet

STAGES = {"conv1": "stem", "layer1": "stage 1", "layer2": "stage 2", "layer3": "stage 3", "layer4": "stage 4"}
"""Parts of a network by the first part of a layer's name; the FC layer is the last."""


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
        network.eval()(torch.zeros(1, 3, network.side, network.side, device=device))
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
