"""Regularisers that any gate can take: importance, load balance, router z-loss and entropy; all off by default.

Shapes: B rows, E experts, X experts and null experts.
"""

import torch
from pydantic import Field
from torch import Tensor, distributed

from contract.settings import Settings
from models.gates.choice import Choice


class Regularisers(Settings):
    """Weights of a gate's regularisers; 0 switches a term off.

    Probabilities are the router's full softmax where the gate selects by it, and the weights themselves elsewhere.
    """

    importance: float = Field(default=0.0, ge=0)
    """The squared coefficient of variation of the experts' summed weights (Shazeer et al. 2017, eq. 6-7)."""
    load_balance: float = Field(default=0.0, ge=0)
    """X * sum_x(share of selections * mean probability) over X experts, 1 when balanced (Fedus et al. 2021, eq. 4)."""
    z_loss: float = Field(default=0.0, ge=0)
    """The mean squared log-sum-exp of the router's softmax logits (Zoph et al. 2022, eq. 5)."""
    entropy: float = Field(default=0.0, ge=0)
    """The mean entropy, in nats, of a row's probabilities; pushes rows towards fewer experts."""

    def penalties(self, choice: Choice) -> dict[str, Tensor]:
        """Give the weighted terms that are switched on, each 0-dim."""
        terms = {
            "importance": (self.importance, importance),
            "load_balance": (self.load_balance, load_balance),
            "z_loss": (self.z_loss, z_loss),
            "entropy": (self.entropy, entropy),
        }
        return {name: weight * term(choice) for name, (weight, term) in terms.items() if weight > 0}


def importance(choice: Choice) -> Tensor:
    """Squared coefficient of variation of the experts' weights summed over the global batch; 0-dim."""
    mean_E = global_mean(choice.weights_BE)
    return mean_E.var(correction=0) / (mean_E.mean().square() + _TINY)


def load_balance(choice: Choice) -> Tensor:
    """Share of selections times mean probability, summed and scaled by the number of experts; 0-dim, 1 if balanced."""
    probability_BX = probabilities(choice)
    load_BX = choice.selected_BE.to(probability_BX.dtype) if choice.load_BX is None else choice.load_BX
    load_X = global_mean(load_BX.detach())
    return probability_BX.shape[-1] * (load_X / (load_X.sum() + _TINY) * global_mean(probability_BX)).sum()


def z_loss(choice: Choice) -> Tensor:
    """Mean squared log-sum-exp of the logits behind the gate's softmax; 0-dim, 0 for a gate without one."""
    if choice.logits_BX is None:
        return choice.weights_BE.new_zeros(())
    return choice.logits_BX.logsumexp(-1).square().mean()


def entropy(choice: Choice) -> Tensor:
    """Mean over rows of the entropy of the probabilities, in nats; 0-dim."""
    probability_BX = probabilities(choice)
    # The guard keeps the gradient finite at a probability of exactly 0, whose share of the entropy is 0.
    return -(probability_BX * (probability_BX + _TINY).log()).sum(-1).mean()


def probabilities(choice: Choice) -> Tensor:
    """The router's softmax over experts and null experts where it selects by one, else the weights; [B, X]."""
    if choice.logits_BX is None or choice.load_BX is None:
        return choice.weights_BE
    return choice.logits_BX.softmax(-1)


def global_mean(rows_BX: Tensor) -> Tensor:
    """Mean over the rows of all ranks, [X].

    Its gradient is scaled so that the average of the ranks' gradients, which is what data parallelism takes, is the
    exact gradient of the global mean; no communication is needed in the backward pass.
    """
    sum_X = rows_BX.sum(0)
    if not (distributed.is_available() and distributed.is_initialized()):
        return sum_X / rows_BX.shape[0]
    total = torch.cat([sum_X.detach(), sum_X.new_full((1,), rows_BX.shape[0])])
    ranks = distributed.get_world_size()
    if ranks > 1:
        distributed.all_reduce(total)
    scale = ranks / total[-1]
    return total[:-1] / total[-1] + (sum_X - sum_X.detach()) * scale


_TINY = 1e-12
