"""How arcface_torch names its tensors and which shapes they have, written down from its rule."""

import torch
from torch import Tensor
from torch.nn import functional

UNITS = {"res18": (2, 2, 2, 2), "res34": (3, 4, 6, 3), "res50": (3, 4, 14, 3), "res100": (3, 13, 30, 3)}
STRIDES = {112: (2, 2, 2, 2), 56: (1, 2, 2, 2), 28: (1, 1, 2, 2), 14: (1, 1, 1, 2), 7: (1, 1, 1, 1)}


def shapes(arch: str, resolution: int, stem: int = 64, dim: int = 512) -> dict[str, tuple[int, ...]]:
    """Shapes by name, in the order of arcface_torch's state dicts; counts of batches are left out."""
    out: dict[str, tuple[int, ...]] = {"conv1.weight": (stem, 3, 3, 3)}

    def norm(name: str, channels: int) -> None:
        for field in ("weight", "bias", "running_mean", "running_var"):
            out[f"{name}.{field}"] = (channels,)

    norm("bn1", stem)
    out["prelu.weight"] = (stem,)
    inputs = stem
    for stage in range(4):
        channels = stem * (1, 2, 4, 8)[stage]
        for index in range(UNITS[arch][stage]):
            unit = f"layer{stage + 1}.{index}"
            norm(f"{unit}.bn1", inputs)
            out[f"{unit}.conv1.weight"] = (channels, inputs, 3, 3)
            norm(f"{unit}.bn2", channels)
            out[f"{unit}.prelu.weight"] = (channels,)
            out[f"{unit}.conv2.weight"] = (channels, channels, 3, 3)
            norm(f"{unit}.bn3", channels)
            if index == 0 and (STRIDES[resolution][stage] == 2 or inputs != channels):
                out[f"{unit}.downsample.0.weight"] = (channels, inputs, 1, 1)
                norm(f"{unit}.downsample.1", channels)
            inputs = channels
    norm("bn2", inputs)
    out["fc.weight"] = (dim, inputs * 49)
    out["fc.bias"] = (dim,)
    norm("features", dim)
    return out


def random_state(arch: str, resolution: int, stem: int = 4, dim: int = 16, seed: int = 0) -> dict[str, Tensor]:
    """A state dict made from names and shapes alone."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes(arch, resolution, stem, dim).items():
        values = torch.rand(shape, generator=generator)
        if name.endswith("running_var"):
            values += 0.5
        elif len(shape) > 1:
            values = (values - 0.5) * (12.0 / values[0].numel()) ** 0.5
        state[name] = values
    state["features.weight"] = torch.ones(dim)
    return state


def reference_forward(
    state: dict[str, Tensor], images: Tensor, arch: str, resolution: int
) -> tuple[Tensor, list[Tensor]]:
    """The network in evaluation mode, written with functions alone: embedding, maps at coupling layers."""

    def norm(name: str, x: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)[: x.ndim]
        weight, bias, mean, var = (
            state[f"{name}.{field}"].reshape(shape) for field in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def prelu(name: str, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * state[f"{name}.weight"].reshape(1, -1, 1, 1))

    def conv(name: str, x: Tensor, stride: int, padding: int) -> Tensor:
        return functional.conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)

    x = prelu("prelu", norm("bn1", conv("conv1", images, 1, 1)))
    couplings = []
    for stage in range(4):
        for index in range(UNITS[arch][stage]):
            unit, stride = f"layer{stage + 1}.{index}", STRIDES[resolution][stage] if index == 0 else 1
            y = norm(f"{unit}.bn2", conv(f"{unit}.conv1", norm(f"{unit}.bn1", x), 1, 1))
            y = norm(f"{unit}.bn3", conv(f"{unit}.conv2", prelu(f"{unit}.prelu", y), stride, 1))
            if f"{unit}.downsample.0.weight" in state:
                x = norm(f"{unit}.downsample.1", conv(f"{unit}.downsample.0", x, stride, 0))
            x = x + y
            if index == 0:
                couplings.append(x)
    x = norm("bn2", x).flatten(1) @ state["fc.weight"].T + state["fc.bias"]
    return norm("features", x), couplings
