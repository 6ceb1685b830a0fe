"""What a network costs: the paper's parameter counts, and multiply-accumulates, worked out from shapes.

The paper counts learned parameters: weights of convolutions and PReLU, the FC layer with its bias, and
weight and bias of every BatchNorm; running statistics are not learned and not counted. That gives 43.59 M
for res50. Beside the trunk a branch costs its own part, up to and including the first unit of the coupling
stage, and the weight and bias of every BatchNorm after it (resolution-aware BN): 0.49 M (1.1 %) for 28,
2.29 M (5.3 %) for 14 and 21.3 M (48.9 %) for 7.
"""

from btnet_train.networks import IResNet, batch_norm_names
from btnet_train.topology import in_branch


def parameter_count(network: IResNet) -> int:
    """Count the learned parameters of a network; `features.weight`, frozen, is among them as in the paper."""
    return sum(parameter.numel() for parameter in network.parameters())


def branch_parameter_count(network: IResNet) -> int:
    """Count the learned parameters that a branch adds to its trunk. ValueError for the trunk itself."""
    norms = set(batch_norm_names(network))
    return sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if in_branch(name, network.resolution) or name in norms
    )


def mac_count(network: IResNet) -> int:
    """Count multiply-accumulates for one image, in convolutions and the FC layer.

    res50 of width 1: 6.309 G at 112, 5.236 G at 28, 4.276 G at 14 and 1.517 G at 7.
    """
    side = network.resolution
    macs = side**2 * network.conv1.weight.numel()
    for stage in network.stages:
        for unit in stage:
            macs += side**2 * unit.conv1.weight.numel()
            side //= unit.conv2.stride[0]
            macs += side**2 * unit.conv2.weight.numel()
            if unit.downsample is not None:
                macs += side**2 * unit.downsample.conv.weight.numel()
    return macs + network.fc.weight.numel()
