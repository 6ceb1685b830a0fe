"""How a branch is made from a trunk: which weights it starts with, and which of them are trained (BTNet, section 3)."""

from btnet_train.networks import IResNet
from btnet_train.topology import in_branch, is_batch_norm


def start_from(network: IResNet, source: IResNet) -> None:
    """Give `network` the tensors of `source` that have the same name and shape.

    The source is the trunk, or a network of the same resolution. A branch lacks the trunk's shortcuts of strides
    it does not have, and otherwise has all of the trunk's tensors. Raises ValueError for networks of another
    architecture.
    """
    if (network.arch, network.width, network.dim) != (source.arch, source.width, source.dim):
        raise ValueError(
            f"source is {source.arch} of width {source.width} and dim {source.dim}, "
            f"expected {network.arch} of width {network.width} and dim {network.dim}"
        )
    given = source.state_dict()
    network.load_state_dict({name: given[name] for name in network.state_dict()})


def fix_trunk(network: IResNet, trunk: IResNet, stage: int | None = None) -> None:
    """Give a branch the trunk's layers after the coupling layer, and exempt them from training, PReLU too.

    Only their BatchNorms stay the branch's own and are trained (resolution-aware BN): those of shortcuts, the one
    before the FC layer and the last one, whose weight stays 1. stage: where the branch joins the trunk, if not at
    the stage of its own size.
    """

    def is_fixed(name: str) -> bool:
        return not in_branch(name, network.resolution, stage) and not is_batch_norm(name)

    given = trunk.state_dict()
    network.load_state_dict({name: given[name] for name in network.state_dict() if is_fixed(name)}, strict=False)
    for name, parameter in network.named_parameters():
        if is_fixed(name):
            parameter.requires_grad_(False)
