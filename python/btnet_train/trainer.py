"""Trains one network: steps, checkpoints that are resumed exactly, logs."""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm

from btnet_ext.whole_files import discard_parts
from btnet_train.batches import Batch, Batches, steps_per_epoch
from btnet_train.errors import Interrupted, TrainingError
from btnet_train.networks import IResNet
from btnet_train.objective import Distilled, Objective
from btnet_train.optimization import build_optimizer, rate
from btnet_train.progress import Means, Progress, plot_values
from btnet_train.recipes import Stage, View
from btnet_train.run_state import load_run, save_run
from btnet_train.sources import Faces
from btnet_train.topology import CANONICAL
from btnet_train.trunk_outputs import TrunkOutputs

logger = logging.getLogger(__name__)

STATE = "state.safetensors"
"""In the folder of a network: where its training stands."""

_LOG_STEPS = 20

# With fewer channels PyTorch 2.13 on x86 writes outside its memory in this layout: in the gradient of a strided 1x1
# convolution of 8 channels in float32.
_CHANNELS_LAST = 16


@dataclass(frozen=True)
class Execution:
    """How a run is carried out; but for rounding and what the parts of a batch are it does not change what is learned.

    micro_batches: equal parts of a batch that follow one another, shared out among the devices; None: one a device.
    BatchNorm, a teacher's similarity and the t of curricularface see one part at a time. workers: processes a device
    that decode images. save_minutes: between checkpoints. stop_at: moment of time.monotonic() when the run saves its
    state and stops. compile: with torch.compile.
    """

    micro_batches: int | None = None
    workers: int = 2
    save_minutes: float = 5.0
    stop_at: float = math.inf
    compile: bool = False


class Training:
    """The training of one network; `run` starts it, or goes on from the state in `folder`.

    targets: the teacher's embeddings (len(faces), D), if the stage has one. outputs: what the trunk gives, in place of
    asking it in each step. validate: called with the network after every epoch; returns numbers by name.
    """

    def __init__(
        self,
        fabric: Fabric,
        stage: Stage,
        objective: Objective,
        faces: Faces,
        folder: Path,
        *,
        execution: Execution,
        seed: int,
        targets: NDArray[np.float32] | None = None,
        outputs: TrunkOutputs | None = None,
        validate: Callable[[IResNet], Mapping[str, float]] | None = None,
    ) -> None:
        self._fabric, self._stage, self._faces, self._folder = fabric, stage, faces, folder
        self._execution, self._seed, self._validate = execution, seed, validate
        self._targets, self._outputs = targets, outputs
        self._objective = objective
        self._per_epoch = steps_per_epoch(faces, stage.schedule.batch_size)
        self._steps = max(1, round(stage.schedule.epochs * self._per_epoch))
        self._parts = execution.micro_batches or fabric.world_size
        self._optimizer = build_optimizer(objective.parameters(), stage.optimizer)
        self._means = Means()
        self._seconds = 0.0
        wide = objective.network.conv1.out_channels % _CHANNELS_LAST == 0
        self._layout = torch.channels_last if wide else torch.contiguous_format

    def run(self) -> dict[str, Any]:
        """Train to the end and return facts: steps, images, and seconds, without those of validation and saving.

        Raises Interrupted, TrainingError, ValueError for batches that cannot be cut as asked, CheckpointError for a
        state that is damaged or of something else, DataError for an image, ChildProcessError, OSError.
        """
        # Before the optimiser's state is read: it goes where the parameters are.
        self._objective.to(self._fabric.device)
        start = self._resume()
        network = self._objective.network
        network.to(memory_format=self._layout)  # type: ignore[call-overload]
        if self._execution.compile:
            network.compile(dynamic=False)
        module, optimizer = self._fabric.setup(self._objective, self._optimizer)
        self._objective.prepare_trunk(self._fabric.device, self._execution.compile)
        module.train()
        title = f"{network.resolution} px"
        schedule = self._stage.schedule
        writes = self._fabric.is_global_zero
        saved = time.monotonic()
        with (
            Progress(self._folder, title, start, self._steps, schedule.batch_size, self._seconds, writes) as progress,
            _stop_signals() as stopped,
        ):
            began = time.monotonic()
            for step, parts in self._by_step(start):
                factor = rate(step, self._steps, self._per_epoch, schedule)
                for group in optimizer.param_groups:
                    group["lr"] = self._stage.optimizer.lr * factor
                stop = bool(stopped) or time.monotonic() >= self._execution.stop_at
                values, stop = self._step(module, optimizer, step, parts, stop)
                self._seconds += time.monotonic() - began
                self._means.add(values)
                progress.advance()
                self._log(progress, step + 1, factor)
                if stop and step + 1 < self._steps:
                    self._save(step + 1)
                    # A process that ends before the others is taken for a failure, and they are killed.
                    self._fabric.barrier()
                    raise Interrupted(f"stopped after step {step + 1} of {self._steps}; the same command goes on")
                if time.monotonic() - saved > 60 * self._execution.save_minutes:
                    self._save(step + 1)
                    saved = time.monotonic()
                began = time.monotonic()
        self._save(self._steps)
        if writes:
            plot_values(self._folder)
        if self._any_process(bool(stopped)):  # during the last step or its validation; there may be other networks
            raise Interrupted(f"stopped after the last of {self._steps} steps; the same command goes on")
        return self._facts(self._steps)

    def _any_process(self, what: bool) -> bool:
        mean = cast(Tensor, self._fabric.all_reduce(torch.tensor(float(what), device=self._fabric.device)))
        return mean.item() > 0

    def _resume(self) -> int:
        path = self._folder / STATE
        if self._fabric.is_global_zero:
            discard_parts(path)
        if not path.exists():
            return 0
        facts = load_run(path, self._objective, self._optimizer)
        expected = {"steps": self._steps, "seed": self._seed, "micro_batches": self._parts}
        for name, value in expected.items():
            if facts[name] != value:
                raise TrainingError(f"{path} is of a run with {name} {facts[name]}, but this one has {value}")
        self._means = Means(facts["sums"], facts["count"])
        self._seconds = facts["seconds"]
        logger.info("going on from step %d of %s", facts["step"], path)
        return int(facts["step"])

    def _facts(self, step: int) -> dict[str, Any]:
        return {
            "step": step,
            "steps": self._steps,
            "images": step * self._stage.schedule.batch_size,
            "seed": self._seed,
            "micro_batches": self._parts,
            "seconds": self._seconds,
            "sums": self._means.sums,
            "count": self._means.count,
        }

    def _save(self, step: int) -> None:
        if self._fabric.is_global_zero:
            save_run(self._folder / STATE, self._objective, self._optimizer, self._facts(step))

    def _by_step(self, start: int) -> Iterator[tuple[int, list[Batch]]]:
        """Yield the parts of every step that this process has."""
        views = self._stage.views_of(self._objective.network.resolution)
        if self._stage.distillation is not None and self._outputs is None:
            views = (*views, View((CANONICAL,)))
        schedule, fabric = self._stage.schedule, self._fabric
        batches = Batches(
            self._faces,
            views,
            batch_size=schedule.batch_size,
            seed=self._seed,
            steps=range(start, self._steps),
            micro_batches=self._parts,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            workers=self._execution.workers,
            flip=self._stage.flip,
        )
        parts: list[Batch] = []
        for batch in batches:
            parts.append(batch)
            if len(parts) == self._parts // fabric.world_size:
                yield batch.step, parts
                parts = []

    def _step(
        self, module: Any, optimizer: Any, step: int, parts: list[Batch], stop: bool
    ) -> tuple[dict[str, float], bool]:
        """Take one step; return the means of the losses over all processes, and whether any of them shall stop."""
        # Dropout's draws follow from the step, so that a resumed run repeats them.
        torch.manual_seed(self._seed * 2**32 + step * self._fabric.world_size + self._fabric.global_rank)
        optimizer.zero_grad()
        sums: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            with self._fabric.no_backward_sync(module, enabled=index + 1 < len(parts)):
                losses = module(*self._on_device(part))
                self._fabric.backward(losses["loss"] / len(parts))
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach() / len(parts)
        names = list(sums)
        values = torch.stack(
            [*(sums[name].float() for name in names), torch.tensor(float(stop), device=self._fabric.device)]
        )
        *means, stops = cast(Tensor, self._fabric.all_reduce(values, reduce_op="mean")).tolist()
        if not all(map(math.isfinite, means)):
            raise TrainingError(self._not_finite(step, dict(zip(names, means, strict=True))))
        # As the published code has it, not those of the classifier: its rows are short at first, their gradients large.
        norm = clip_grad_norm_(self._objective.network.parameters(), self._stage.optimizer.clip)
        heads = [p.grad for p in self._objective.head_parameters() if p.grad is not None]
        for name, value in {"gradient": norm, "gradient of the heads": get_total_norm(heads)}.items():
            if not torch.isfinite(value):
                raise TrainingError(self._not_finite(step, {name: float(value)}))
        optimizer.step()
        return dict(zip(names, means, strict=True)), stops > 0

    def _on_device(self, batch: Batch) -> tuple[list[Tensor], Tensor, Tensor | None, Distilled | None, float]:
        targets, distilled = None, None
        if self._targets is not None:
            targets = torch.from_numpy(np.asarray(self._targets[batch.indices.numpy()], np.float32))
        if self._outputs is not None:
            distilled = self._outputs.of(batch.indices, batch.flips)
        move = self._fabric.to_device
        views = [move(view).contiguous(memory_format=self._layout) for view in batch.views]
        return views, move(batch.labels), None if targets is None else move(targets), move(distilled), batch.labeled

    def _not_finite(self, step: int, values: Mapping[str, float]) -> str:
        wrong = ", ".join(f"{name} {value}" for name, value in values.items() if not math.isfinite(value))
        state = self._folder / STATE
        last = f"the last good state is {state}" if state.exists() else "no state has been saved yet"
        advice = "lower optimizer.lr or lengthen schedule.warmup_epochs"
        return f"step {step + 1} of {self._steps} gave {wrong}: {advice}; {last}"

    def _log(self, progress: Progress, step: int, factor: float) -> None:
        values = {}
        if step % _LOG_STEPS == 0 or step == self._steps:
            values = self._means.take()
        if self._validate is not None and (step % self._per_epoch == 0 or step == self._steps):
            self._objective.eval()
            values |= self._validate(self._objective.network)
            self._objective.train()
        if values:
            progress.write(step, step / self._per_epoch, self._stage.optimizer.lr * factor, self._seconds, values)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Yield a list that gets the numbers of SIGINT and SIGTERM, the first of each, in place of their usual effect."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
