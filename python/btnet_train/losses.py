"""Classifiers with margins: a softmax over the training identities, which is thrown away after training.

With theta_j the angle between an embedding x and the weight of class j, and y the label, the logits are
scale * cos(theta_j), but that of the label is made harder to reach by the margin m:

arcface         cos(theta_y + m), m in radians (Deng et al., CVPR 2019, Eq. 3)
cosface         cos(theta_y) - m (Wang et al., CVPR 2018, Eq. 4)
curricularface  as arcface; other classes with cos(theta_j) > cos(theta_y + m) get cos(theta_j) (t + cos(theta_j)),
                t being a moving average of cos(theta_y) (Huang et al., CVPR 2020)
normface        no margin, m = 0 (Wang et al., ACM Multimedia 2017)
sphereface      (-1)^k cos(m theta_y) - 2 k for theta_y in [k pi / m, (k + 1) pi / m], m a whole number, and all
                logits times the norm of x (Liu et al., CVPR 2017, Eq. 7, without annealing)

Beyond theta_y + m = pi, where cos(theta_y + m) would rise again, arcface and curricularface take
cos(theta_y) - m sin(m), as insightface and pytorch-metric-learning do (`easy_margin=False`).
All but curricularface come from pytorch-metric-learning.
"""

import math

import torch
from pytorch_metric_learning import losses as library
from torch import Tensor, distributed, nn
from torch.func import functional_call
from torch.nn import functional

from btnet_train.margins import LOSSES, check_margin

_INITIAL_DEVIATION = 0.01  # of the weights; as in arcface_torch and the published BTNet code
_T_MOMENTUM = 0.99


class Classifier(nn.Module):
    """A classifier of embeddings (n, dim) into `classes` identities, and its loss, one of LOSSES.

    weight: (classes, dim), a row for each identity, of any norm. All losses have it alike, so that the weight
    of a trained classifier can serve under another loss. curricularface also has the buffer t, which every
    forward with labels in training mode updates, and which starts at 0. Where several processes train together, t is
    updated with the rows of each of them, one process after the other: as one process does it, part by part.

    margin: m of the formulas above: 0 <= m < pi for arcface and curricularface, 0 <= m < 2 for cosface, 0 for
    normface and a whole number from 1 to 8 for sphereface. scale: positive; sphereface's paper has 1.
    Raises ValueError that names the argument.
    """

    t: Tensor

    def __init__(self, loss: str, classes: int, dim: int, *, margin: float, scale: float) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        if classes < 2:
            raise ValueError(f"classes must be at least 2, got {classes!r}")
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim!r}")
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {scale!r}")
        check_margin(loss, margin)
        self.loss, self.classes, self.dim, self.margin, self.scale = loss, classes, dim, margin, scale
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.normal_(self.weight, std=_INITIAL_DEVIATION)
        if loss == "curricularface":
            self.register_buffer("t", torch.zeros(()))
        else:
            self._library_loss = _LibraryLoss(loss, classes, dim, margin, scale)

    def extra_repr(self) -> str:
        """Return the arguments, for print(module)."""
        return f"{self.loss!r}, {self.classes}, {self.dim}, margin={self.margin}, scale={self.scale}"

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss over the rows that have a label, a scalar in float32 whatever autocast says.

        embeddings: (n, dim), not normalised. labels: (n,) int64, -1 for rows without one. If no row has a
        label, the result is exactly 0 and all gradients are. Raises ValueError for other shapes and labels.
        """
        self._check_input(embeddings, labels)
        labeled = labels >= 0
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings, labels = embeddings.float()[labeled], labels[labeled]
            weight = self.weight.float()
            # First, and without labels, too: t follows those of the other processes.
            logits = self._curricular_logits(embeddings, labels, weight) if self.loss == "curricularface" else None
            if not len(labels):
                return embeddings.sum() + weight[:0].sum()
            if logits is not None:
                return functional.cross_entropy(logits, labels)
            return self._library_loss(embeddings, labels, weight)

    def _check_input(self, embeddings: Tensor, labels: Tensor) -> None:
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dim:
            raise ValueError(f"embeddings must have the shape (n, {self.dim}), got {tuple(embeddings.shape)}")
        if labels.shape != embeddings.shape[:1] or labels.dtype != torch.int64:
            raise ValueError(
                f"labels must be int64 of the shape ({len(embeddings)},), got {labels.dtype} of {tuple(labels.shape)}"
            )
        wrong = ((labels < -1) | (labels >= self.classes)).nonzero()
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"labels must be -1 or a class from 0 to {self.classes - 1}, got {int(labels[row])} in row {row}"
            )

    def _curricular_logits(self, embeddings: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        cosines = functional.linear(functional.normalize(embeddings), functional.normalize(weight))
        own = cosines.gather(1, labels[:, None])
        angles = _angles(own)
        harder = torch.cos(angles + self.margin)
        t = self._follow(own.detach().mean()) if self.training else self.t
        logits = torch.where(cosines > harder, cosines * (t + cosines), cosines)
        target = torch.where(angles <= math.pi - self.margin, harder, own - self.margin * math.sin(self.margin))
        return self.scale * logits.scatter(1, labels[:, None], target)

    def _follow(self, mean: Tensor) -> Tensor:
        """Move t towards the mean cosine of each process in turn, NaN for no rows; return t after that of this one."""
        means, place = _of_all_processes(mean)
        course = []
        for each in means:
            self.t.lerp_(torch.where(each.isnan(), self.t, each), 1 - _T_MOMENTUM)
            course.append(self.t.clone())
        return course[place]


class _LibraryLoss:
    """A loss of pytorch-metric-learning as a function of embeddings, labels and weight (classes, dim).

    Its own parameter W, (dim, classes), is a placeholder without memory. This is no module, so that
    neither W nor anything else of it is a parameter of the classifier.
    """

    def __init__(self, loss: str, classes: int, dim: int, margin: float, scale: float) -> None:
        arguments = {"num_classes": classes, "embedding_size": dim, "weight_init_func": _leave}
        self._loss: nn.Module
        if loss == "arcface":
            self._loss = _ArcFace(margin=math.degrees(margin), scale=scale, **arguments)
        elif loss == "cosface":
            self._loss = library.CosFaceLoss(margin=margin, scale=scale, **arguments)
        elif loss == "sphereface":
            self._loss = _SphereFace(margin=margin, scale=scale, **arguments)
        else:
            self._loss = library.NormalizedSoftmaxLoss(temperature=1 / scale, **arguments)
        self._loss.W = nn.Parameter(torch.empty(0))

    def __call__(self, embeddings: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        result: Tensor = functional_call(self._loss, {"W": weight.t()}, (embeddings, labels))
        return result


def _of_all_processes(value: Tensor) -> tuple[list[Tensor], int]:
    """Return what every process that trains along has for a tensor, in their order, and the place of this one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value], 0
    values = [torch.empty_like(value) for _ in range(distributed.get_world_size())]
    distributed.all_gather(values, value)
    return values, distributed.get_rank()


def _leave(_: Tensor) -> None:
    """Initialise nothing."""


class _ArcFace(library.ArcFaceLoss):  # type: ignore[misc]
    """The library's, whose gradient is NaN where an embedding points exactly along or against its class."""

    def get_angles(self, cosine_of_target_classes: Tensor) -> Tensor:
        return _angles(cosine_of_target_classes)


class _SphereFace(library.SphereFaceLoss):  # type: ignore[misc]
    """The library's, which hands tensors to SciPy for its binomials, in a way that NumPy 2 is about to refuse."""

    margin: float

    def init_margin(self) -> None:
        self.margin = int(self.margin)
        self.n_range = torch.arange(self.margin // 2 + 1)
        self.margin_choose_n = torch.tensor([math.comb(self.margin, 2 * n) for n in self.n_range.tolist()])
        self.cos_powers = self.margin - 2 * self.n_range
        self.alternating = 1 - 2 * (self.n_range % 2)


def _angles(cosines: Tensor) -> Tensor:
    """Return the angles, in 0..pi, with gradient 0 where acos has none: at +-1, and beyond by rounding."""
    inside = cosines.abs() < 1
    ends = cosines.detach().clamp(-1, 1).acos()
    return torch.where(inside, torch.where(inside, cosines, 0).acos(), ends)
