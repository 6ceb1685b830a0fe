"""IResNet, the trunk and the branches of BTNet (He et al., BMVC 2023), and where the two meet.

The network is that of ArcFace (Deng et al., CVPR 2019): units of BN-conv-BN-PReLU-conv-BN with an identity
shortcut. Names of parameters are those of insightface's arcface_torch and of the published BTNet code, so
that checkpoints of both load.
"""

from collections.abc import Iterator
from itertools import islice
from typing import cast

import torch
from torch import Tensor, nn

from btnet_train.topology import BASE_CHANNELS, CANONICAL, RESOLUTIONS, UNITS, in_branch, is_batch_norm, stride_of

_MAP_SIDE = 7  # of the maps that reach the FC layer, whatever the resolution


class Shortcut(nn.Sequential):
    """1x1 conv of `stride` and BN, for maps whose size or channels change."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__(nn.Conv2d(inputs, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))

    @property
    def conv(self) -> nn.Conv2d:
        """The convolution, `downsample.0` in the names of parameters."""
        return cast(nn.Conv2d, self[0])

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The BatchNorm, `downsample.1` in the names of parameters."""
        return cast(nn.BatchNorm2d, self[1])


class Unit(nn.Module):
    """BN, 3x3 conv, BN, PReLU, 3x3 conv of `stride`, BN, and the shortcut added.

    The shortcut is the identity unless stride or channels change. Maps go from (N, inputs, s, s) to
    (N, channels, s / stride, s / stride).
    """

    def __init__(self, inputs: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        changes = stride != 1 or inputs != channels
        self.downsample = Shortcut(inputs, channels, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit's maps for maps `x`."""
        y = self.conv1(self.bn1(x))
        y = self.conv2(self.prelu(self.bn2(y)))
        y = self.bn3(y)
        y += x if self.downsample is None else self.downsample(x)
        return cast(Tensor, y)


class IResNet(nn.Module):
    """IResNet for square inputs of one resolution: the trunk at 112, a branch implanted into it below.

    The first unit of stage k keeps its stride of 2 only where the resolution is at least 112 / 2^(k-1), so
    that maps of 7x7 reach the FC layer at every resolution. Below 112 stage 1 therefore begins with an
    identity shortcut and has no `layer1.0.downsample`.

    arch: res18, res34, res50 or res100. width: multiplies the channels 64, 128, 256, 512; 64 * width must
    be whole. resolution: one of 7, 14, 28, 56, 112. dim: length of the embedding. dropout: probability
    before the FC layer. `features.weight` is 1 and frozen, as in arcface_torch. Raises ValueError for an
    argument that is none of these.
    """

    def __init__(
        self,
        arch: str = "res50",
        width: float = 1.0,
        resolution: int = CANONICAL,
        dim: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_architecture(arch, width, resolution, dim)
        self.arch, self.width, self.resolution, self.dim = arch, float(width), resolution, dim
        stem = int(BASE_CHANNELS * width)
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.prelu = nn.PReLU(stem)
        inputs = stem
        for stage, units in enumerate(UNITS[arch], start=1):
            channels = stem * 2 ** (stage - 1)
            layer = [Unit(inputs, channels, stride_of(stage, resolution))]
            layer += [Unit(channels, channels) for _ in range(units - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*layer))
            inputs = channels
        self.bn2 = nn.BatchNorm2d(inputs)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs * _MAP_SIDE**2, dim)
        self.features = nn.BatchNorm1d(dim)
        self.features.weight.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.1)

    @property
    def stages(self) -> list[list[Unit]]:
        """The units of the four stages, `layer1` to `layer4`."""
        layers = [self.get_submodule(f"layer{stage}") for stage in (1, 2, 3, 4)]
        return [cast(list[Unit], list(layer.children())) for layer in layers]

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return raw embeddings (N, dim) and the coupling layers' maps for normalised images (N, 3, r, r).

        The four maps are the outputs of the first unit of each stage. In the trunk they are 56, 28, 14 and
        7 px wide. In a branch that of its coupling stage is as wide as its input, and as the trunk's map of
        that stage. Raises ValueError for images of another shape.
        """
        expected = (3, self.resolution, self.resolution)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise ValueError(f"images must be (N, {', '.join(map(str, expected))}), got {tuple(images.shape)}")
        *couplings, x = self._maps(images)
        x = self.dropout(torch.flatten(self.bn2(x), 1))
        return self.features(self.fc(x)), couplings

    def coupling_map(self, images: Tensor, stage: int) -> Tensor:
        """Return the output of the first unit of `stage`, 1 to 4, and compute nothing that lies after it."""
        return next(islice(self._maps(images), stage - 1, None))

    def _maps(self, images: Tensor) -> Iterator[Tensor]:
        """Compute, one after the other, the output of each stage's first unit, and then that of the last stage."""
        x = self.prelu(self.bn1(self.conv1(images)))
        for first, *rest in self.stages:
            x = first(x)
            yield x
            for unit in rest:
                x = unit(x)
        yield x


def batch_norm_names(network: IResNet) -> list[str]:
    """Return the names of the BatchNorms after the coupling layer, which a branch has of its own, too."""
    names = network.state_dict()
    return [name for name in names if is_batch_norm(name) and not in_branch(name, network.resolution)]


def _check_architecture(arch: str, width: float, resolution: int, dim: int) -> None:
    if arch not in UNITS:
        raise ValueError(f"arch must be one of {', '.join(UNITS)}, got {arch!r}")
    if not width > 0 or not float(BASE_CHANNELS * width).is_integer():
        raise ValueError(f"width must be a positive multiple of 1/{BASE_CHANNELS}, got {width!r}")
    if resolution not in RESOLUTIONS:
        raise ValueError(f"resolution must be one of {', '.join(map(str, RESOLUTIONS))}, got {resolution!r}")
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim!r}")
