"""A pull of the network's weights towards what they were, so that a new day does not overwrite the old ones.

Sources: Xuhong et al. 2018, "Explicit Inductive Bias for Transfer Learning", equation 2 (L2-SP, all weights alike);
Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", equation 3 (EWC, each weight by its
Fisher information). The diagonal of the Fisher information is taken from Adam's running mean of squared gradients
(Kingma and Ba 2015, "Adam", section 2), which the earlier run's checkpoint holds; it costs no pass over old rows.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.sharding import Sharded


class Anchor:
    """Adds `weight` times (times importance) the distance from the weights as they are now to their gradients."""

    def __init__(self, sharded: Sharded, weight: float, importance: Mapping[str, Tensor] | None = None) -> None:
        """Remember the weights; `importance` by parameter name, None: all alike."""
        self._weight = weight
        self._places = [
            (parameter, parameter.detach().clone(), None if importance is None else importance.get(name))
            for name, parameter in sharded.named_dense_parameters().items()
        ]

    @torch.no_grad()
    def pull(self) -> None:
        """Add the gradient of weight / 2 times the (weighed) squared distance."""
        for parameter, before, importance in self._places:
            if parameter.grad is not None:
                distance = parameter - before
                parameter.grad.add_(distance if importance is None else distance * importance, alpha=self._weight)


def fisher_information(sharded: Sharded) -> dict[str, Tensor]:
    """Adam's mean squared gradients by parameter, in units of their mean over the whole network.

    Example::

        anchor = Anchor(sharded, 0.1, fisher_information(sharded))
    """
    names = {parameter: name for name, parameter in sharded.named_dense_parameters().items()}
    squares = {
        names[parameter]: state["exp_avg_sq"].detach().clone()
        for parameter, state in sharded.optimizer.state.items()
        if isinstance(parameter, nn.Parameter) and parameter in names and "exp_avg_sq" in state
    }
    count = sum(each.numel() for each in squares.values())
    mean = sum(float(each.double().sum()) for each in squares.values()) / max(count, 1)
    return {name: each / max(mean, 1e-30) for name, each in squares.items()}
