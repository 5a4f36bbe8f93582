"""One step: forward, loss, backward and update, the same on any number of ranks.

Shape legend: B rows of this rank, D columns of the input matrix, T tasks.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from contract.errors import TrainingError
from contract.inputs import Batch
from models.losses import Losses, RankingLoss
from models.ranker_tensors import RankerOutput, TensorInputs
from models.row_share import RowShare, rows_of_batch
from models.sharding import Sharded
from models.weighting import Shared, Weighting
from pipeline.training.bad_batch import BadBatch, diagnose_gradient, diagnose_loss
from pipeline.training.learning_rate import rate_factor
from pipeline.training.seeds import seed_of_step
from pipeline.training.teacher import Teacher
from pipeline.training.train_config import SizedConfig


class Wishes(NamedTuple):
    """What any rank may ask for before a step: to stop after it, or to save after it."""

    stop: bool = False
    save: bool = False


class StepResult(NamedTuple):
    """The losses of a step (None: the batch was skipped, for the reason in `bad`) and what some rank asked for."""

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
        bf16: bool,
        teacher: Teacher | None = None,
    ) -> None:
        """Take the parts; `total_steps` of the schedule is given with each step."""
        self.sharded, self.loss, self.weighting, self.config = sharded, loss, weighting, config
        self.device, self.bf16, self.teacher = loss.unit_T.device, bf16, teacher
        self._columns_gradient: Tensor | None = None
        self._anchor: list[Tensor] = []
        self._anchor_weight = 0.0

    def stay_near(self, weight: float) -> None:
        """From now on, pull the network's weights to what they are: `weight` / 2 times the squared distance.

        Source: Xuhong et al. 2018, "Explicit Inductive Bias for Transfer Learning", equation 2 (L2-SP).
        """
        self._anchor_weight = weight
        self._anchor = [p.detach().clone() for p in self.sharded.dense_parameters()] if weight else []

    def __call__(self, batch: Batch, share: RowShare, step: int, total_steps: int, wishes: Wishes) -> StepResult:
        """Train on this rank's part of a batch.

        Raises:
            TrainingError: the loss or a gradient is not finite, and bad batches are not to be skipped.
        """
        self._prepare(step, total_steps)
        statistics = self._statistics() if self.config.on_bad_batch == "skip" else {}
        alone = dist.get_world_size() == 1
        with rows_of_batch(None if alone else share):
            output = self._forward(batch)
            labels, weights = (torch.from_numpy(a).to(self.device) for a in (batch.labels, batch.weights))
            weights[: share.repeated] = 0.0
            users = torch.from_numpy(batch.user.view(np.int64)).to(self.device) if self.config.within_user else None
            taught = None if self.teacher is None else self.teacher.labels(batch, labels)
            losses = self.loss(output, labels, weights, users, taught_BT=taught)
            sums_T, finite, wishes = _agree(weights, losses, wishes)
            if not finite:
                self._seed(step)
                bad = diagnose_loss(self.sharded.model, self.sharded.ranker, self.loss, batch, step)
                bad = bad if alone else _with_rows(bad)
                return self._refuse(bad, statistics, wishes)
            if not alone:
                losses = self.loss(output, labels, weights, users, sums_T, taught)
            losses, bad_gradient = self._backward(output, losses)
        if bad_gradient:
            bad = diagnose_gradient(self.sharded.ranker, batch, step, self._columns_gradient)
            return self._refuse(bad, statistics, wishes)
        self.sharded.optimizer.step()
        return StepResult(losses, wishes)

    def _prepare(self, step: int, total_steps: int) -> None:
        self._seed(step)
        self.sharded.scale_learning_rates(rate_factor(self.config, step, total_steps))
        self.sharded.ranker.network.step(step)
        self.sharded.optimizer.zero_grad()

    def _seed(self, step: int) -> None:
        # Seeded by step, dropout falls the same in a run that was interrupted as in one that was not.
        torch.manual_seed(seed_of_step(self.config.seed, step))

    def _forward(self, batch: Batch) -> RankerOutput:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            output: RankerOutput = self.sharded.model(TensorInputs.from_numpy(batch.inputs).to(self.device))
        return output

    def _backward(self, output: RankerOutput, losses: Losses) -> tuple[Losses, bool]:
        """Gradients of everything; whether one is not finite, and then no table has moved."""
        self._columns_gradient = None
        if output.columns_BD.requires_grad:
            # The tables are updated inside the backward pass: what would break them must not reach them.
            output.columns_BD.register_hook(self._guard)
        parameters = self.sharded.dense_parameters()
        losses = self.weighting.backward(losses, Shared(output.columns_BD, parameters))
        for parameter, anchor in zip(parameters if self._anchor else (), self._anchor, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - anchor, alpha=self._anchor_weight)
        if self.config.gradient_clip:
            norm = self.sharded.clip_gradients(self.config.gradient_clip)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        return losses, self._columns_gradient is not None or not bool(norm.isfinite())

    def _guard(self, gradient_BD: Tensor) -> Tensor | None:
        if bool(gradient_BD.isfinite().all()):
            return None
        self._columns_gradient = gradient_BD
        return torch.zeros_like(gradient_BD)

    def _statistics(self) -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in self.sharded.ranker.network.named_buffers()}

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


def _with_rows(bad: BadBatch) -> BadBatch:
    """What the first rank that holds a bad row says; all ranks must ask together."""
    everyone: list[BadBatch | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, bad)
    return next((each for each in everyone if each is not None and each.rows), bad)


def _agree(weights_BT: Tensor, losses: Losses, wishes: Wishes) -> tuple[Tensor, bool, Wishes]:
    """What the ranks know together: mean sums of weights [T], whether all losses are finite, who wants what."""
    sums_T = weights_BT.sum(dim=0)
    finite = losses.total.detach().isfinite()
    world = dist.get_world_size()
    if world == 1:
        return sums_T, bool(finite), wishes
    flags = torch.tensor([wishes.stop, wishes.save], device=sums_T.device)
    everything = torch.cat([sums_T, (~finite).float().reshape(1), flags.float()])
    dist.all_reduce(everything)
    broken, stop, save = everything[len(sums_T) :].tolist()
    return everything[: len(sums_T)] / world, broken == 0, Wishes(stop > 0, save > 0)
