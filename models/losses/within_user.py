"""Losses that compare rows of one user: what a list shown to that user is ordered by.

Each is a term on top of the task's own loss, which keeps answers calibrated. Train with batches that keep a user's rows
together (`train.batches: by_user`), or most rows stand alone and say nothing here.

Shape legend: B rows, P pairs, U users.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from contract.settings import Settings


class WithinUserConfig(Settings):
    """`weight` times a loss over the rows of one user (`within`), of a binary task.

    ``pairwise``: -log sigmoid(z_i - z_j) over pairs of a positive i and a negative j (Burges et al. 2005, "Learning to
    Rank using Gradient Descent", equation 3). ``listwise``: each positive against all rows by softmax (Cao et al. 2007,
    "Learning to Rank: From Pairwise Approach to Listwise Approach", with top-one probabilities). ``jrc``: the
    generative half of Sheng et al. 2023, "Joint Optimization of Ranking and Calibration with Contextualized Hybrid
    Model", equation 5, each row against all rows in the logit of its own class. The paper gives both classes a logit of
    their own; here they are z / 2 and -z / 2, so that the served graph answers with one.
    """

    name: Literal["pairwise", "listwise", "jrc"]
    """``pairwise``: -log sigmoid(z_i - z_j) over pairs of a positive i and a negative j. ``listwise``: each positive
    against all rows by softmax. ``jrc``: each row against all rows in the logit of its own class."""
    within: Literal["user"] = "user"
    """Whose rows are compared."""
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """The weight of the term."""

    def loss(self, logits_B: Tensor, labels_B: Tensor, users_B: Tensor) -> Tensor:
        """The weighted term, 0-dim; 0 where no user has rows of both classes."""
        positive_B = labels_B > _POSITIVE
        _, user_B = users_B.unique(return_inverse=True)
        mixed_B = _mixed(positive_B, user_B)
        rule = {"pairwise": _pairwise, "listwise": _listwise, "jrc": _jrc}[self.name]
        if not bool(mixed_B.any()):
            return logits_B.sum() * 0.0
        return self.weight * rule(logits_B[mixed_B], positive_B[mixed_B], user_B[mixed_B])


_POSITIVE = 0.5


def _mixed(positive_B: Tensor, user_B: Tensor) -> Tensor:
    # Rows of users with both classes: those of others have no order to learn.
    rows_U = user_B.bincount()
    positives_U = user_B.bincount(weights=positive_B.double())
    return ((positives_U > 0) & (positives_U < rows_U))[user_B]


def _pairwise(logits_B: Tensor, positive_B: Tensor, user_B: Tensor) -> Tensor:
    over, under = positive_B.nonzero().squeeze(1), (~positive_B).nonzero().squeeze(1)
    pairs_P2 = (user_B[over].unsqueeze(1) == user_B[under]).nonzero()
    gap_P = logits_B[over[pairs_P2[:, 0]]] - logits_B[under[pairs_P2[:, 1]]]
    return functional.softplus(-gap_P).mean()


def _listwise(logits_B: Tensor, positive_B: Tensor, user_B: Tensor) -> Tensor:
    return (_logsumexp(logits_B, user_B) - logits_B)[positive_B].mean()


def _jrc(logits_B: Tensor, positive_B: Tensor, user_B: Tensor) -> Tensor:
    half_B = logits_B / 2
    own_B = torch.where(positive_B, half_B, -half_B)
    among_B = torch.where(positive_B, _logsumexp(half_B, user_B), _logsumexp(-half_B, user_B))
    return (among_B - own_B).mean()


def _logsumexp(values_B: Tensor, user_B: Tensor) -> Tensor:
    # Of each row's user, at each row.
    users = int(user_B.max()) + 1
    highest_U = values_B.new_full((users,), -torch.inf).scatter_reduce(0, user_B, values_B.detach(), "amax")
    sum_U = values_B.new_zeros(users).index_add(0, user_B, (values_B - highest_U[user_B]).exp())
    return highest_U[user_B] + sum_U[user_B].log()
