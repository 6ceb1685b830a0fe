"""Seeded networks with random weights that behave like trained ones in what tests and benchmarks look at.

Activations neither explode nor die with depth, different images get clearly different embeddings, and
rounding errors stay small, so that cosines against a reference mean something. The same seed gives the same
bytes, on any CPU and with any number of threads: random numbers are uniform ones, and the statistics, the
only results of long sums, are computed in float64 and rounded to 10 bits.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from btnet_train.networks import IResNet
from btnet_train.topology import CANONICAL, in_branch, is_batch_norm

_BatchNorm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d

_CALIBRATION_IMAGES = 8
_BITS = 10


def random_networks(
    arch: str = "res50",
    width: float = 1.0,
    *,
    dim: int = 512,
    resolutions: Sequence[int] = (7, 14, 28, 112),
    seed: int = 0,
) -> dict[int, IResNet]:
    """Return a trunk and its branches by resolution, in evaluation mode.

    As in BTNet, a branch has the trunk's tensors after the coupling layer, but for BatchNorm. 112 must be
    among `resolutions`; which others there are does not change a network. Raises ValueError for a wrong
    seed and for what `IResNet` refuses.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2^32 - 1, got {seed}")
    if CANONICAL not in resolutions:
        raise ValueError(f"resolutions must have {CANONICAL}, the trunk's, got {list(resolutions)}")
    networks = {resolution: IResNet(arch, width, resolution, dim) for resolution in sorted(resolutions, reverse=True)}
    images = _smooth_images(_generator(seed, 0))
    for resolution, network in networks.items():
        generator = _generator(seed, resolution)
        _randomize(network, generator)
        if resolution != CANONICAL:
            _implant(network, networks[CANONICAL])
        _calibrate(network, functional.adaptive_avg_pool2d(images, resolution))
        _perturb_statistics(network, generator)
        network.eval()
    return networks


def _generator(seed: int, stream: int) -> torch.Generator:
    """Return the generator of a seed and a stream, 0 to 112."""
    return torch.Generator().manual_seed(seed * 128 + stream)


def _uniform(generator: torch.Generator, shape: Sequence[int], low: float, high: float) -> Tensor:
    # torch.rand takes the bits of an integer; Gaussian numbers differ by instruction set in their last bits.
    return torch.rand(tuple(shape), generator=generator) * (high - low) + low


def _randomize(network: IResNet, generator: torch.Generator) -> None:
    """Draw convolutions and FC with variance 1 / fan-in, and slopes and affine parameters near usual ones."""
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                bound = (3.0 / module.weight[0].numel()) ** 0.5
                module.weight.copy_(_uniform(generator, module.weight.shape, -bound, bound))
                if module.bias is not None:
                    module.bias.copy_(_uniform(generator, module.bias.shape, -0.1, 0.1))
            elif isinstance(module, nn.PReLU):
                module.weight.copy_(_uniform(generator, module.weight.shape, 0.1, 0.4))
            elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                # A modest gain on the residual path keeps the variance from growing with every unit.
                gain = 0.35 if name.endswith(".bn3") else 1.0
                if name != "features":
                    module.weight.copy_(_uniform(generator, module.weight.shape, 0.8 * gain, 1.2 * gain))
                module.bias.copy_(_uniform(generator, module.bias.shape, -0.1, 0.1))


def _implant(branch: IResNet, trunk: IResNet) -> None:
    """Give a branch the trunk's tensors after the coupling layer, but for BatchNorm."""
    shared = {
        name: tensor
        for name, tensor in trunk.state_dict().items()
        if not in_branch(name, branch.resolution) and not is_batch_norm(name)
    }
    branch.load_state_dict(shared, strict=False)


def _calibrate(network: IResNet, images: Tensor) -> None:
    """Set running means and variances to what the layers see for `images`, rounded."""
    norms = _batch_norms(network)
    network.double().train()
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network(images)
    for norm in norms:
        norm.momentum = 0.1
        mean, variance = _statistics(norm)
        _, exponent = np.frexp(variance)
        variance[:] = _round(variance, exponent)
        mean[:] = _round(mean, exponent // 2)
    network.float()


def _round(x: NDArray[Any], exponent: NDArray[Any]) -> NDArray[Any]:
    """Round to multiples of 2^(exponent - 10)."""
    rounded: NDArray[Any] = np.ldexp(np.rint(np.ldexp(x, _BITS - exponent)), exponent - _BITS)
    return rounded


def _perturb_statistics(network: IResNet, generator: torch.Generator) -> None:
    """Move means by up to 5 % of the deviation, variances by up to 10 %: trained ones fit no single batch."""
    for norm in _batch_norms(network):
        mean, variance = _statistics(norm)
        # NumPy's root is exact, unlike that of the vector library that torch uses on some CPUs.
        mean += _uniform(generator, mean.shape, -0.05, 0.05).numpy() * np.sqrt(variance)
        variance *= _uniform(generator, variance.shape, 0.9, 1.1).numpy()


def _batch_norms(network: IResNet) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]


def _statistics(norm: _BatchNorm) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the running mean and variance as arrays on the same memory."""
    return cast(Tensor, norm.running_mean).numpy(), cast(Tensor, norm.running_var).numpy()


def _smooth_images(generator: torch.Generator) -> Tensor:
    """Return images (n, 3, 112, 112), float64 in -1..1, with most contrast at low frequencies."""
    images = torch.zeros(_CALIBRATION_IMAGES, 3, CANONICAL, CANONICAL, dtype=torch.float64)
    for side, amplitude in ((2, 0.7), (4, 0.5), (8, 0.35), (16, 0.25), (32, 0.15), (64, 0.08)):
        grid = _uniform(generator, (_CALIBRATION_IMAGES, 3, side, side), -amplitude, amplitude).double()
        images += functional.interpolate(grid, size=CANONICAL, mode="bicubic", align_corners=False)
    return images.clamp(-1, 1)
