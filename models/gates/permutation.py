"""A learned permutation of the experts, for any gate: COMET's local search.

Source: Ibrahim et al. 2023, "COMET: Learning Cardinality Constrained Mixture of Experts with Trees and Local Search",
section 4; the Sinkhorn operator on logits over a temperature is Mena et al. 2018, "Learning Latent Permutations with
Gumbel-Sinkhorn Networks", section 2. While it is learned, training mixes weights with a soft permutation matrix and
evaluation takes the nearest hard one; after `steps` training steps it is frozen to the hard one for good, and all
that is computed, and exported, is a gather by an index vector.

Where this is a choice of ours and not the paper's: an evaluation in the middle of the search takes the nearest hard
permutation (the assignment of the soft matrix's largest sum), the search's end is a number of training steps and not a
test of convergence, each gate has a permutation of its own, each row's weights keep their sum while the matrix is soft,
and the entropy term is off unless configured.

Shapes: B rows, E experts.
"""

import math
from typing import Self

import torch
from pydantic import Field
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from contract.settings import Settings
from models.gates.choice import Choice

_LOG_EPSILON = 1e-6
"""Inside the logarithm of an entropy, as in the reference layers."""
_INITIAL_RANGE = 0.05


class PermutationConfig(Settings):
    """How the order of the experts is learned, before it is frozen at training step `steps`."""

    steps: int = Field(ge=1)
    """The training step at which the permutation is frozen."""
    first_log10_temperature: float = -3.0
    """The logarithm of the temperature at first; it changes linearly."""
    last_log10_temperature: float = -7.0
    """The logarithm of the temperature at the end."""
    first_rounds: int = Field(default=20, ge=1)
    """Sinkhorn rounds at first; their number changes linearly."""
    last_rounds: int = Field(default=150, ge=1)
    """Sinkhorn rounds at the end."""
    entropy: float = Field(default=0.0, ge=0)
    """The weight of the term that pushes the soft matrix towards a hard one."""

    def at(self, step: int) -> tuple[float, int]:
        """Give the temperature and the number of Sinkhorn rounds of a training step."""
        share = min(max(step / self.steps, 0.0), 1.0)
        log10 = self.first_log10_temperature + (self.last_log10_temperature - self.first_log10_temperature) * share
        rounds = self.first_rounds + (self.last_rounds - self.first_rounds) * share
        return 10.0**log10, math.floor(rounds)


class Permutation(nn.Module):
    """Moves the weight of place i to expert j by a matrix that is soft while learned and hard once frozen.

    `index` [E]: expert j takes the weight of place ``index[j]``. `frozen`: whether learning is over.
    """

    index_E: Tensor
    index_is_final: Tensor

    def __init__(self, config: PermutationConfig, experts: int) -> None:
        """Start near the uniform matrix, as the paper does."""
        super().__init__()
        self.config = config
        self.log_alpha_EE = nn.Parameter(torch.empty(experts, experts).uniform_(-_INITIAL_RANGE, _INITIAL_RANGE))
        self.register_buffer("index_E", torch.arange(experts))
        self.register_buffer("index_is_final", torch.zeros((), dtype=torch.bool))
        self.frozen = False
        self.temperature, self.rounds = config.at(0)

    def soft(self) -> Tensor:
        """The doubly stochastic matrix of the present step, [E, E]."""
        return sinkhorn(self.log_alpha_EE, self.temperature, self.rounds)

    def step(self, global_step: int) -> None:
        """Set temperature and rounds; take the hard assignment when the learning is over."""
        self.temperature, self.rounds = self.config.at(global_step)
        over = global_step >= self.config.steps
        if over == self.frozen:
            return
        # A final index that was loaded stands: the optimiser's momentum may have moved the matrix since.
        if over and not bool(self.index_is_final):
            self.harden()
        self.index_is_final.fill_(over)
        self.frozen = over

    def harden(self) -> None:
        """Set the index vector from the soft matrix."""
        with torch.no_grad():
            self.index_E.copy_(assignment(self.soft()))

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - nn.Module's own signature
        """Switch the mode; evaluation before the freeze takes the nearest hard permutation of that moment."""
        if not mode and not self.frozen and not self.index_E.is_meta:
            self.harden()
        return super().train(mode)

    def forward(self, choice: Choice) -> Choice:
        """Permute the columns of a choice, with its penalty while the matrix is learned."""
        if self.training and not self.frozen:
            return self._mix(choice)
        hard = choice._replace(
            weights_BE=choice.weights_BE.index_select(-1, self.index_E),
            selected_BE=choice.selected_BE.index_select(-1, self.index_E),
        )
        # Data-parallel training expects a gradient for every parameter at every step, also from a frozen one.
        return hard._replace(penalties={"permutation": 0.0 * self.log_alpha_EE.sum()}) if self.training else hard

    def _mix(self, choice: Choice) -> Choice:
        soft_EE = self.soft()
        mixed_BE = choice.weights_BE @ soft_EE.to(choice.weights_BE.dtype)
        # After few rounds the matrix is not yet doubly stochastic: keep each row's total.
        before_B1, after_B1 = choice.weights_BE.sum(-1, keepdim=True), mixed_BE.sum(-1, keepdim=True)
        weights_BE = mixed_BE * (before_B1 / after_B1.clamp_min(torch.finfo(mixed_BE.dtype).tiny))
        penalty = self.config.entropy * matrix_entropy(soft_EE)
        return choice._replace(weights_BE=weights_BE, selected_BE=weights_BE > 0, penalties={"permutation": penalty})


def sinkhorn(log_alpha_EE: Tensor, temperature: float, rounds: int) -> Tensor:
    """Normalise rows and columns of exp(log_alpha / temperature) in turns, [..., E, E] (Mena et al. 2018, eq. 4)."""
    log_EE = log_alpha_EE / temperature
    for _ in range(rounds):
        log_EE = log_EE.log_softmax(-1)
        log_EE = log_EE.log_softmax(-2)
    return log_EE.exp()


def matrix_entropy(soft_EE: Tensor) -> Tensor:
    """Entropy of the matrix and of the matrix with its rows normalised, summed; 0-dim, 0 for a permutation."""
    rows_EE = soft_EE / soft_EE.sum(-1, keepdim=True)
    return sum((-(x * (x + _LOG_EPSILON).log()).sum() for x in (soft_EE, rows_EE)), soft_EE.new_zeros(()))


def assignment(soft_EE: Tensor) -> Tensor:
    """The permutation of greatest total weight (Hungarian), int64 [E]: the row that each column takes."""
    _, column_of_row = linear_sum_assignment(soft_EE.detach().double().cpu().numpy(), maximize=True)
    return torch.from_numpy(column_of_row).argsort().to(soft_EE.device)
