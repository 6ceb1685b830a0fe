"""What a stage minimises: one module from a batch of views to the losses of a recipe, network and heads included."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from btnet_train.distillation import PAIR_LOSSES, cosine_distance, map_distance, similarity_matrix
from btnet_train.losses import Classifier
from btnet_train.networks import IResNet
from btnet_train.recipes import Distillation, Stage, TeacherLoss
from btnet_train.topology import coupling_stage, in_branch

_MEAN = _STD = 127.5


@dataclass(frozen=True)
class Heads:
    """What is used in training only: the classifier over identities, and the linear map to a teacher's space."""

    classifier: Classifier | None = None
    projection: nn.Linear | None = None


class Distilled(NamedTuple):
    """What a frozen trunk gives for the 112 px images of a batch: maps (n, C, s, s), embeddings (n, D) if asked for."""

    maps: Tensor
    embeddings: Tensor | None


class Objective(nn.Module):
    """The losses of `stage` for `network`, with `heads`, and the frozen `trunk` for distillation.

    `state_dict()` has the network under "network." and the heads under "classifier." and "projection."; the trunk
    belongs to another run, and is neither saved nor trained.
    """

    def __init__(self, stage: Stage, network: IResNet, heads: Heads, trunk: IResNet | None = None) -> None:
        super().__init__()
        self.stage = stage
        self.network = network
        self.classifier = heads.classifier
        self.projection = heads.projection
        if stage.distillation is not None and trunk is None:
            raise ValueError("distillation needs a trunk")
        # In a tuple, so that it is no submodule.
        self._trunk: tuple[IResNet, ...] = ()
        if trunk is not None and stage.distillation is not None:
            self._trunk = (trunk.eval().requires_grad_(False),)
            self._coupling_map: Callable[[Tensor, int], Tensor] = trunk.coupling_map
        if self.classifier is not None and stage.classification is not None and stage.classification.frozen:
            self.classifier.requires_grad_(False)
        if self.projection is not None and stage.teacher is not None and stage.teacher.frozen:
            self.projection.requires_grad_(False)
        if not _uses_embeddings(stage):
            # No gradient reaches what lies after the maps, and DDP waits for one of each parameter that is trained.
            # It is computed nevertheless: the averages of its BatchNorms become the branch's.
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and in_branch(name, network.resolution))

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the heads."""
        for head in (self.classifier, self.projection):
            if head is not None:
                yield from head.parameters()

    def prepare_trunk(self, device: torch.device, compiled: bool) -> None:
        """Move the trunk, which `to` does not reach, to the device of the network, and compile it if asked to."""
        for trunk in self._trunk:
            trunk.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if compiled:
                trunk.compile()
                self._coupling_map = torch.compile(self._coupling_map)

    def forward(
        self,
        views: Sequence[Tensor],
        labels: Tensor,
        targets: Tensor | None,
        distilled: Distilled | None = None,
        labeled: float | None = None,
    ) -> dict[str, Tensor]:
        """Return every loss of the recipe, times its weight, by name, and their sum as "loss".

        views: uint8 (n, 3, s, s), one for each view of the stage; with distillation, another one at 112 px for
        the trunk, unless `distilled` is what it gives. labels: (n,), -1 for none. targets: the teacher's embeddings
        (n, D) of length 1, if it has one. labeled: where this is one of several parts of a batch, how many images with
        a label they have on average, so that each of these counts alike; None: it is a whole batch.
        """
        asked = bool(self._trunk) and distilled is None
        seen = views[:-1] if asked else views
        embeddings, couplings = self.network(normalize(torch.cat(list(seen))))
        parts = embeddings.float().chunk(len(seen))
        losses: dict[str, Tensor] = {}
        if self.stage.classification is not None and self.classifier is not None:
            terms = [self.classifier(part, labels) for part in parts]
            share = (labels >= 0).sum() / labeled if labeled else 1.0
            losses["classification"] = self.stage.classification.weight * share * torch.stack(terms).sum()
        if self.stage.pair is not None:
            distance = PAIR_LOSSES[self.stage.pair.loss]
            terms = [distance(parts[0], other) for other in parts[1:]]
            losses["pair"] = self.stage.pair.weight * torch.stack(terms).sum()
        if self.stage.teacher is not None and targets is not None:
            losses["teacher"] = torch.stack([self._teach(self.stage.teacher, p, targets) for p in parts]).mean()
        if self.stage.distillation is not None:
            losses |= self._distil(self.stage.distillation, distilled or self._ask(views[-1]), embeddings, couplings)
        losses["loss"] = torch.stack(list(losses.values())).sum()
        return losses

    def _teach(self, options: TeacherLoss, embeddings: Tensor, targets: Tensor) -> Tensor:
        loss = embeddings.new_zeros(())
        if options.similarity:
            loss = options.similarity * similarity_matrix(embeddings, targets)
        if options.cosine:
            with torch.autocast(embeddings.device.type, enabled=False):
                taught = embeddings if self.projection is None else self.projection(embeddings)
                loss = loss + options.cosine * cosine_distance(taught, targets)
        return loss

    def _ask(self, view: Tensor) -> Distilled:
        """Return what the trunk gives; no more of it is computed than the losses look at."""
        (trunk,), stage = self._trunk, coupling_stage(self.network.resolution)
        with torch.no_grad():
            if self.stage.distillation is None or not self.stage.distillation.embedding:
                return Distilled(self._coupling_map(normalize(view), stage), None)
            embeddings, maps = trunk(normalize(view))
            return Distilled(maps[stage - 1], embeddings)

    def _distil(
        self, options: Distillation, goal: Distilled, embeddings: Tensor, couplings: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        """Return the losses against the trunk's maps and embeddings of the 112 px images."""
        losses: dict[str, Tensor] = {}
        if options.maps:
            maps = couplings[coupling_stage(self.network.resolution) - 1]
            losses["maps"] = options.maps * map_distance(maps, goal.maps)
        if options.embedding and goal.embeddings is not None:
            distance = PAIR_LOSSES["cosine"] if options.embedding_loss == "cosine" else functional.mse_loss
            losses["embedding"] = options.embedding * distance(embeddings.float(), goal.embeddings.float())
        return losses


def _uses_embeddings(stage: Stage) -> bool:
    """Tell whether a loss looks at embeddings, and not at maps alone."""
    distilled = stage.distillation is not None and stage.distillation.embedding > 0
    return distilled or any(loss is not None for loss in (stage.classification, stage.pair, stage.teacher))


def normalize(images: Tensor) -> Tensor:
    """Return uint8 images (n, 3, s, s) as the networks expect them: (x - 127.5) / 127.5."""
    return (images.float() - _MEAN) / _STD
