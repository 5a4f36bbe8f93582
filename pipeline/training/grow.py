"""Grow a mixture out of a smaller model: experts from a shared bottom, from one expert, or from fewer of them.

Sources: Komatsuzaki et al. 2023, "Sparse Upcycling: Training Mixture-of-Experts from Dense Checkpoints" (every expert
is a copy, the router is new); Nakamura et al. 2025, "Drop-Upcycling: Training Sparse Mixture of Experts with Partial
Re-initialization", section 3 (a share of each copy's hidden units is redrawn, with the mean and spread that the
layer had); Nie et al. 2021, "EvoMoE: An Evolutional Mixture-of-Experts Training Framework", section 3.2 (one expert is
trained first, and its copies become diverse by random masks on their weights; dense_to_sparse is its gate). Here the
first copy of each source stays whole, so that nothing learned is lost.

Shape legend: N experts before, E experts now, H outputs and D inputs of a layer.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from contract.errors import DataError
from models.architectures import MMoEConfig, SharedBottomConfig
from models.model_config import ModelConfig

How = Literal["copy", "drop", "mask"]
_MAY_DIFFER = {"architecture", "experts", "gate", "gate_scope", "max_union", "routing", "sparse_training"}
_BANK = "model.network.levels.0.banks.0.experts.blocks."
_GATES = ".gates."
_VECTORS = ("linear.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
_FRESH = {"norm.weight": 1.0, "norm.running_var": 1.0}


class _Layer(NamedTuple):
    """A layer of the experts before: weights [N, H, D], and what there is for each output, [N, H] by name."""

    weights: Tensor
    vectors: dict[str, Tensor]


def grown(
    old: Mapping[str, Tensor], before: ModelConfig, now: ModelConfig, how: How, share: float, seed: int
) -> dict[str, Tensor]:
    """A checkpoint's tensors as they are for the larger model, to be carried over by name.

    Raises:
        DataError: the models differ in more than their experts and gates, or cannot be grown into each other.
    """
    _require(before, now)
    layers = _layers(old, before, now)
    experts = layers[0].weights.shape[0]
    source = torch.arange(now.experts) % experts
    copies = [_Layer(w[source].clone(), {n: v[source].clone() for n, v in vectors.items()}) for w, vectors in layers]
    generator = torch.Generator().manual_seed(seed % (1 << 63))
    for expert in range(experts, now.experts):
        if how == "drop":
            _drop(copies, expert, share, generator)
        elif how == "mask":
            for layer in copies:
                masked = torch.rand(layer.weights[expert].shape, generator=generator) < share
                layer.weights[expert].masked_fill_(masked, 0.0)
    tensors = {name: tensor for name, tensor in old.items() if not name.startswith(_BANK) and _GATES not in name}
    for place, layer in enumerate(copies):
        prefix = f"{_BANK}{place}."
        if place == 0:
            tensors[f"{prefix}linear.weight"] = layer.weights.flatten(0, 1)
            tensors |= {prefix + name: vector.flatten() for name, vector in layer.vectors.items()}
        else:
            tensors[f"{prefix}linear.weight_EHD"] = layer.weights
            tensors |= {f"{prefix}{name}": vector.flatten() for name, vector in layer.vectors.items()}
            tensors[f"{prefix}linear.bias_EH"] = layer.vectors["linear.bias"]
    return tensors


def can_grow(before: ModelConfig, now: ModelConfig) -> bool:
    """Whether a model can be grown out of another one."""
    kinds = (MMoEConfig, SharedBottomConfig)
    fits = isinstance(now.architecture, MMoEConfig) and isinstance(before.architecture, kinds)
    private = [c.private_experts for c in (before.architecture, now.architecture) if isinstance(c, MMoEConfig)]
    one_network = now.members == 1 and not any(private)
    return fits and one_network and now.experts >= _count(before) and not _differing(before, now)


def _differing(before: ModelConfig, now: ModelConfig) -> list[str]:
    """What differs between two models and must not."""
    old, new = before.model_dump(), now.model_dump()
    return sorted(name for name in old if old[name] != new[name] and name not in _MAY_DIFFER)


def _require(before: ModelConfig, now: ModelConfig) -> None:
    if not can_grow(before, now):
        other = _differing(before, now)
        differing = f" ({', '.join(other)} differ)" if other else ""
        message = (
            f"{before.architecture.name} with {_count(before)} experts cannot grow into {now.architecture.name} "
            f"with {now.experts}{differing}: train.warm.grow makes more experts of an mmoe without private_experts and "
            "with one member out of a shared_bottom, or out of an mmoe with fewer; all else must stay"
        )
        raise DataError(message)


def _count(config: ModelConfig) -> int:
    return 1 if isinstance(config.architecture, SharedBottomConfig) else config.experts


def _layers(old: Mapping[str, Tensor], before: ModelConfig, now: ModelConfig) -> list[_Layer]:
    dense = isinstance(before.architecture, SharedBottomConfig)
    layers = []
    for place in range(len(now.expert_widths)):
        prefix = f"model.network.bottom.{len(before.bottom) + place}." if dense else f"{_BANK}{place}."
        grouped = f"{prefix}linear.weight_EHD" in old
        weights = old[f"{prefix}linear.weight_EHD" if grouped else f"{prefix}linear.weight"]
        experts = _count(before)
        vectors = {
            name: old[prefix + name].reshape(experts, -1) for name in _VECTORS if prefix + name in old
        }  # fmt: skip
        if grouped:
            vectors["linear.bias"] = old[f"{prefix}linear.bias_EH"]
        layers.append(_Layer(weights.reshape(experts, -1, weights.shape[-1]), vectors))
    return layers


def _drop(layers: list[_Layer], expert: int, share: float, generator: torch.Generator) -> None:
    """Draw a share of an expert's hidden units again: their inputs, and the next layer's weights that read them."""
    for layer, following in pairwise(layers):
        weights, reads = layer.weights[expert], following.weights[expert]
        hidden = weights.shape[0]
        units = torch.randperm(hidden, generator=generator)[: round(share * hidden)]
        for values, place in ((weights, (units,)), (reads, (slice(None), units))):
            anew = torch.empty(values[place].shape)
            mean, spread = float(values.mean()), float(values.std())
            values[place] = anew.normal_(mean, spread, generator=generator)
        for name, vector in layer.vectors.items():
            vector[expert, units] = _FRESH.get(name, 0.0)
