"""One step: forward, loss, backward and update, the same on any number of ranks.

Shape legend: B rows of this rank, D columns of the input matrix, T tasks.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from contract.errors import TrainingError
from contract.inputs import Batch
from models.list_counts import lists_of
from models.losses import Losses, RankingLoss
from models.ranker_tensors import RankerOutput, TensorInputs
from models.row_share import RowShare, rows_of_batch
from models.sharding import Sharded
from models.table_decay import TableDecay
from models.weighting import Shared, Weighting
from pipeline.training.anchor import Anchor
from pipeline.training.bad_batch import BadBatch, diagnose_flags, diagnose_gradient, diagnose_loss
from pipeline.training.device_copies import BatchTensors, DeviceCopies
from pipeline.training.gradient_scale import GradientScale
from pipeline.training.late_check import Guard, LateCheck, Moved, PastStep, StepFlags, zero_unless
from pipeline.training.learning_rate import rate_factor
from pipeline.training.rank_agreement import Wishes, agree, everywhere, wishes_of, with_rows
from pipeline.training.rates_on_device import RatesOnDevice
from pipeline.training.seeds import seed_generators, seed_of_step
from pipeline.training.step_graph import StepGraph, obstacle
from pipeline.training.teacher import Teacher
from pipeline.training.train_config import SizedConfig
from pipeline.training.weight_average import WeightAverage


class StepResult(NamedTuple):
    """The losses of a step, None if its batch was skipped, and what some rank asked for.

    `bad` says why this batch was skipped or, on a card, the one before, whose losses were given as 0.
    """

    losses: Losses | None
    wishes: Wishes
    bad: BadBatch | None = None


class TrainingStep:
    """The model, its loss and its optimisers, and how a batch moves them."""

    def __init__(
        self,
        sharded: Sharded,
        loss: RankingLoss,
        weighting: Weighting,
        config: SizedConfig,
        *,
        autocast: torch.dtype | None = None,
        teacher: Teacher | None = None,
        waits: bool | None = None,
        captures: bool | None = None,
    ) -> None:
        """Take the parts; `total_steps` of the schedule is given with each step.

        `waits`: the host asks in each step whether it was finite, and not a step later; None: but on a card, where
        nothing looks at single steps. `captures`: a step of a full batch is a CUDA graph; None: on a card, where
        nothing stands against it.
        """
        self.sharded, self.loss, self.weighting, self.config = sharded, loss, weighting, config
        self.device, self.autocast, self.teacher = loss.unit_T.device, autocast, teacher
        self.copies = DeviceCopies(self.device, users=bool(config.within_user))
        """Batches on their way to the device; give an epoch's to its `ahead`."""
        self.average = None if config.average is None else WeightAverage(sharded, config.average)
        self.anchor: Anchor | None = None
        self._scale: GradientScale | None = None
        if autocast is torch.float16:
            self._scale = GradientScale(self.device)
            sharded.beside["gradient_scale"] = self._scale.state
        single = config.accumulate > 1 or config.weighting.name != "fixed" or self._scale is not None
        waits = single or (self.device.type != "cuda" if waits is None else waits)
        self._late = None if waits else LateCheck()
        with self._autocast():
            against = obstacle(sharded, config, self.device, teacher=teacher is not None)
        self.obstacle = _why_it_waits(config, self._scale) if waits else against
        """What keeps a step from being captured, in words; None: nothing does."""
        captures = self.device.type == "cuda" and config.capture == "auto" if captures is None else captures
        self.graph = StepGraph(self.device) if captures and self.obstacle is None else None
        self._decay = TableDecay(sharded.ranker.embeddings)
        self._rates = None if self.graph is None else RatesOnDevice(sharded, self.device)
        self._columns_gradient: Tensor | None = None
        self._step = 0
        self._gathered = 0
        """Batches whose gradients the network has not been moved by yet."""

    def __call__(
        self, batch: Batch, share: RowShare, step: int, total_steps: int, wishes: Wishes, *, update: bool = True
    ) -> StepResult:
        """Train on this rank's part of a batch; without `update`, its gradient is kept for the next batch's.

        Raises:
            TrainingError: the loss or a gradient is not finite, and bad batches are not to be skipped.
        """
        self._prepare(step, total_steps)
        if self._late is not None:
            return self._ahead(self._late, batch, share, (step, total_steps), wishes)
        statistics = self._statistics() if self.config.on_bad_batch == "skip" else {}
        alone = dist.get_world_size() == 1
        with self._decay.noted(), rows_of_batch(None if alone else share):
            output, weights, loss = self._answers(self.copies.take(batch), batch, share)
            losses = loss()
            sums_T, finite, wishes = agree(weights, losses, wishes)
            if not finite:
                self._seed(step)
                bad = diagnose_loss(self.sharded.model, self.sharded.ranker, self.loss, batch, step)
                bad = bad if alone else with_rows(bad)
                return self._refuse(bad, statistics, wishes)
            if not alone:
                losses = loss(sums_T)
            losses, bad_gradient = self._backward(output, losses)
        if bad_gradient:
            self._gathered = 0
        if self._scale is not None and self._scale.follow(overflow=bad_gradient) and bad_gradient:
            return StepResult(losses, wishes)  # too large for float16 by this factor, which is smaller from now on
        if bad_gradient:
            bad = diagnose_gradient(self.sharded.ranker, batch, step, self._columns_gradient)
            return self._refuse(bad, statistics, wishes)
        self._decay.apply()
        self._gathered += 1
        if update:
            self._update()
            if self.average is not None:
                self.average.follow(step, total_steps)
        return StepResult(losses, wishes)

    def settle(self) -> BadBatch | None:
        """Wait for the last step; what was wrong with its batch, if it was skipped and nobody was told yet.

        Before weights are validated or saved it must be called, on all ranks together.

        Raises:
            TrainingError: as a step.
        """
        if self._late is None:
            return None
        if self.graph is not None:
            # Where a gate reads it no step is captured: it is for who saves the gates.
            self.sharded.ranker.network.step(self._step)
        past, _ = self._late.exchange(None)
        return None if past is None else self._told(past)

    def _ahead(
        self, late: LateCheck, batch: Batch, share: RowShare, place: tuple[int, int], wishes: Wishes
    ) -> StepResult:
        """A step that asks the device nothing, and then what came of the one before."""
        alone = dist.get_world_size() == 1
        tensors, move = self.copies.take(batch), partial(self._move, batch, share, place, wishes)
        if self.graph is not None and batch.rows == self.config.batch_size:
            averaged = self.average is not None and self.average.has_begun(*place)
            losses, flags, asked = self.graph(move, tensors, averaged)
        else:
            losses, flags, asked = move(tensors)
        past, told = late.exchange(PastStep(place[0], batch, flags), wishes_of(wishes) if alone else asked)
        bad = None if past is None else self._told(past)
        return StepResult(losses, wishes if alone else Wishes(*told), bad)

    def _move(
        self, batch: Batch, share: RowShare, place: tuple[int, int], wishes: Wishes, tensors: BatchTensors
    ) -> Moved:
        """The step itself; where it is captured, nothing but the tensors changes from one to the next."""
        alone = dist.get_world_size() == 1
        statistics = self._statistics() if self.config.on_bad_batch == "skip" else {}
        self.sharded.optimizer.zero_grad()
        with self._rates or nullcontext(), self._decay.noted(), rows_of_batch(None if alone else share):
            output, weights, loss = self._answers(tensors, batch, share)
            losses = loss()
            sums_T, finite, asked = everywhere(weights, losses, wishes)
            if not alone:
                losses = loss(sums_T)
            losses, flags = self._guarded(output, losses, finite)
            self.sharded.skip_update(~flags.all)
            # At once, before the next step takes them for good ones, or the average for its own.
            self._restore_unless(flags.all, statistics)
            self._gathered = 1
            self._update()
        if self._decay.active:
            self._decay.apply(flags.all * (1.0 if self._rates is None else self._rates.factor))
        if self.average is not None:
            self.average.follow(*place, moved=flags.all)
        return Moved(zero_unless(flags.all, losses), flags, asked)

    def _answers(
        self, tensors: BatchTensors, batch: Batch, share: RowShare
    ) -> tuple[RankerOutput, Tensor, Callable[..., Losses]]:
        """The model's answers, the rows' weights [B, T], and the losses, given the sums of weights of all ranks [T]."""
        inputs, labels, weights, users = tensors
        with lists_of(batch.inputs):
            output = self._forward(inputs)
        weights[: share.repeated] = 0.0
        taught = None if self.teacher is None else self.teacher.labels(batch, labels)
        return output, weights, partial(self.loss, output, labels, weights, users, taught_BT=taught)

    def _guarded(self, output: RankerOutput, losses: Losses, finite: Tensor) -> tuple[Losses, StepFlags]:
        guard = Guard(finite)
        if output.columns_BD.requires_grad:
            output.columns_BD.register_hook(guard)
        losses = self.weighting.backward(losses, Shared(output.columns_BD, self.sharded.dense_parameters()))
        return losses, guard.flags(finite, self._gradients())

    def _told(self, past: PastStep) -> BadBatch:
        """Name what was wrong with a step that is over."""
        parts = self.sharded.model, self.sharded.ranker, self.loss
        statistics = self._statistics()
        if past.flags.loss:
            names = [name for name, p in self.sharded.named_dense_parameters().items() if p.grad is not None]
            bad = diagnose_flags(self.sharded.ranker, past.batch, past.step, (names, past.flags))
        else:
            self._seed(past.step)
            bad = diagnose_loss(*parts, past.batch, past.step)
            bad = bad if dist.get_world_size() == 1 else with_rows(bad)
        self._refuse(bad, statistics, Wishes())
        return bad

    def _prepare(self, step: int, total_steps: int) -> None:
        self._seed(step)
        factor = rate_factor(self.config, step, total_steps)
        if self._rates is None:
            self.sharded.scale_learning_rates(factor)
        else:
            self._rates.set(factor)
        self._step = step
        if self.graph is None:
            self.sharded.ranker.network.step(step)
        if self._late is None and self._gathered == 0:
            self.sharded.optimizer.zero_grad()

    def _update(self) -> None:
        """Move the network by the mean gradient of the batches since the last time."""
        batches, self._gathered = self._gathered, 0
        if self._scale is not None:
            self._scale.unscale(self._gradients())
        if batches > 1:
            for gradient in self._gradients():
                gradient.div_(batches)
        if self.anchor is not None:
            self.anchor.pull()
        if self.config.gradient_clip:
            self.sharded.clip_gradients(self.config.gradient_clip)
        self.sharded.optimizer.step()

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.sharded.dense_parameters() if p.grad is not None]

    def _seed(self, step: int) -> None:
        # Seeded by step, dropout falls the same in a run that was interrupted as in one that was not.
        seed_generators(seed_of_step(self.config.seed, step), self.device)

    def _forward(self, inputs: TensorInputs) -> RankerOutput:
        with self._autocast():
            output: RankerOutput = self.sharded.model(inputs)
        return output

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    def _backward(self, output: RankerOutput, losses: Losses) -> tuple[Losses, bool]:
        """Gradients of everything; whether one is not finite, and then no table has moved."""
        self._columns_gradient = None
        if output.columns_BD.requires_grad:
            # The tables are updated inside the backward pass: what would break them must not reach them.
            output.columns_BD.register_hook(self._guard)
        factor = None if self._scale is None else self._scale.factor
        shared = Shared(output.columns_BD, self.sharded.dense_parameters())
        losses = self.weighting.backward(losses if factor is None else _times(losses, factor), shared)
        norm = nn.utils.get_total_norm(self._gradients())
        bad = self._columns_gradient is not None or not bool(norm.isfinite())
        return losses if factor is None else _times(losses, 1.0 / factor), bad

    def _guard(self, gradient_BD: Tensor) -> Tensor | None:
        if not bool(gradient_BD.isfinite().all()):
            self._columns_gradient = gradient_BD
            return torch.zeros_like(gradient_BD)
        return None if self._scale is None else gradient_BD / self._scale.factor

    def _statistics(self) -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in self.sharded.ranker.network.named_buffers()}

    @torch.no_grad()
    def _restore_unless(self, good: Tensor, kept: dict[str, Tensor]) -> None:
        """What a batch that was bad, by a flag that may lie on the card, left in the norms' statistics."""
        buffers = dict(self.sharded.ranker.network.named_buffers())
        for name, before in kept.items():
            buffers[name].copy_(torch.where(good, buffers[name], before))

    def _refuse(self, bad: BadBatch, kept: dict[str, Tensor], wishes: Wishes) -> StepResult:
        if self.config.on_bad_batch == "stop":
            message = (
                f"{bad}\nmend the rows, lower the learning rates, set train.gradient_clip, or leave such batches out "
                "with train.on_bad_batch: skip; the last checkpoint is untouched"
            )
            raise TrainingError(message)
        for name, buffer in self.sharded.ranker.network.named_buffers():
            buffer.copy_(kept[name])
        return StepResult(None, wishes, bad)


def _why_it_waits(config: SizedConfig, scale: GradientScale | None) -> str:
    if config.accumulate > 1:
        return "gradients of several batches are added up, by train.accumulate"
    if config.weighting.name != "fixed":
        return f"train.weighting {config.weighting.name} looks at single batches"
    return "each step waits" if scale is None else "each step of float16 waits to know whether it overflowed"


def _times(losses: Losses, factor: Tensor) -> Losses:
    penalties = {name: penalty * factor for name, penalty in losses.penalties.items()}
    return Losses(losses.total * factor, losses.tasks_T * factor, penalties)
