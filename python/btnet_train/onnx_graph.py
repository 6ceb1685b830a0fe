"""Networks as ONNX models whose tensors lie in one file that all models share.

The graphs are built with onnx.helper rather than traced: the result then does not depend on the version of an
exporter, BatchNormalization stays unfolded, and the same networks give the same bytes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from btnet_ext.weights_file import WeightsFile
from btnet_train.networks import IResNet, Unit

_OPSET = 17
_IR_VERSION = 8  # the one that came with opset 17


def build_model(network: IResNet, weights: WeightsFile, *, half: bool = False) -> onnx.ModelProto:
    """Return the model of a network: `input` (N, 3, r, r) to `embedding` (N, dim), tensors in `weights`.

    half: store the weights of convolutions and of the fully connected layer as float16, each with a Cast behind it, so
    that everything is computed in float32 all the same. Raises ValueError for a weight that float16 cannot hold.
    """
    builder = _GraphBuilder(weights, half)
    x = builder.conv("conv1", network.conv1, "input")
    x = builder.prelu("prelu", network.prelu, builder.batch_norm("bn1", network.bn1, x))
    for number, stage in enumerate(network.stages, start=1):
        for index, unit in enumerate(stage):
            x = builder.unit(f"layer{number}.{index}", unit, x)
    x = builder.node("Flatten", "flatten", [builder.batch_norm("bn2", network.bn2, x)], axis=1)
    tensors = [builder.weight("fc", network.fc), *builder.tensors("fc", network.fc, "bias")]
    x = builder.node("Gemm", "fc", [x, *tensors], transB=1)
    builder.batch_norm("features", network.features, x, output="embedding")
    side = network.resolution
    graph = helper.make_graph(
        builder.nodes,
        f"{network.arch}_{side}",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, side, side])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", network.dim])],
        builder.initializers,
    )
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="btnet")


class _GraphBuilder:
    """Nodes and initializers of one graph; each method adds a layer and returns the name of its output."""

    def __init__(self, weights: WeightsFile, half: bool) -> None:
        self._half = half
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._weights = weights

    def node(self, kind: str, name: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        output = output or f"{name}.out"
        self.nodes.append(helper.make_node(kind, inputs, [output], name, **attributes))
        return output

    def tensor(self, name: str, tensor: torch.Tensor, shape: tuple[int, ...] | None = None) -> str:
        self.initializers.append(self._weights.add(name, _values(tensor), shape or tuple(tensor.shape)))
        return name

    def tensors(self, name: str, module: nn.Module, *fields: str) -> list[str]:
        return [self.tensor(f"{name}.{field}", getattr(module, field)) for field in fields]

    def weight(self, name: str, layer: nn.Conv2d | nn.Linear) -> str:
        """The weight of a layer that has many: these are what storage in half precision makes smaller."""
        name = f"{name}.weight"
        if not self._half:
            return self.tensor(name, layer.weight)
        values = _values(layer.weight)
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16)
        if not np.isfinite(rounded).all():
            largest, limit = np.abs(values).max(), np.finfo(np.float16).max
            raise ValueError(f"{name} has values up to {largest:g}, but half precision (f16) ends at {limit:g}")
        self.initializers.append(self._weights.add(name, rounded, tuple(values.shape)))
        return self.node("Cast", f"{name}.cast", [name], to=TensorProto.FLOAT)

    def conv(self, name: str, conv: nn.Conv2d, x: str) -> str:
        side, stride = conv.kernel_size[0], conv.stride[0]
        inputs = [x, self.weight(name, conv)]
        return self.node("Conv", name, inputs, kernel_shape=[side] * 2, strides=[stride] * 2, pads=[side // 2] * 4)

    def batch_norm(self, name: str, norm: nn.BatchNorm1d | nn.BatchNorm2d, x: str, output: str | None = None) -> str:
        inputs = [x, *self.tensors(name, norm, "weight", "bias", "running_mean", "running_var")]
        return self.node("BatchNormalization", name, inputs, output, epsilon=norm.eps)

    def prelu(self, name: str, prelu: nn.PReLU, x: str) -> str:
        # ONNX broadcasts the slope from the right, so one for each channel needs two trailing axes.
        slope = self.tensor(f"{name}.weight", prelu.weight, (prelu.num_parameters, 1, 1))
        return self.node("PRelu", name, [x, slope])

    def unit(self, name: str, unit: Unit, x: str) -> str:
        y = self.conv(f"{name}.conv1", unit.conv1, self.batch_norm(f"{name}.bn1", unit.bn1, x))
        y = self.prelu(f"{name}.prelu", unit.prelu, self.batch_norm(f"{name}.bn2", unit.bn2, y))
        y = self.batch_norm(f"{name}.bn3", unit.bn3, self.conv(f"{name}.conv2", unit.conv2, y))
        if unit.downsample is not None:
            x = self.conv(f"{name}.downsample.0", unit.downsample.conv, x)
            x = self.batch_norm(f"{name}.downsample.1", unit.downsample.norm, x)
        return self.node("Add", f"{name}.add", [x, y])


def _values(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    return values
