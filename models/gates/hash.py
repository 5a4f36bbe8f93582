"""Hash gate: one expert a row, by a stable hash of an id.

Source: Roller et al. 2021, "Hash Layers For Large Sparse Models", section 3.1 (random and balanced assignment). The
hash is a random polynomial of degree 2 modulo the prime 2^31 - 1 (Wegman and Carter 1981, "New Hash Functions and Their
Use in Authentication and Set Equality"): defined for every id, also one that training never saw, equal on every
machine, and made of integer products below 2^62, so that it exports as it is.

Shapes: B rows, E experts, R ids in the table.
"""

import hashlib
import heapq
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from contract.errors import ConfigError
from models.gates.choice import Choice, members
from models.gates.gate import Gate, GateSettings
from models.gates.regularisers import Regularisers

_PRIME = 2**31 - 1


class HashConfig(GateSettings):
    """Route by one id feature alone; nothing is learned.

    Ids are the feature's encoded rows: a vocabulary sends all unknown values to row 0 and so to one expert, a hash
    encoding spreads them.
    """

    name: Literal["hash"] = "hash"
    feature: str
    """The id feature by which to route."""
    assignment: Literal["random", "balanced"] = "random"
    """``random`` hashes every id. ``balanced`` spreads the ids 0 to `rows` - 1 evenly over the experts, by how often
    they occur in the training rows, and hashes those beyond."""
    rows: int = Field(default=0, ge=0)
    """How many ids ``balanced`` spreads; 0: all ids of the feature."""
    seed: int = 0
    """Picks the hash."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.regularisers != Regularisers():
            message = "a hash gate learns nothing, so regularisers have no effect: leave them out"
            raise ValueError(message)
        return self

    def over(self, rows: int) -> "HashConfig":
        """The same gate with the number of ids of its feature, unless `rows` says another."""
        return self if self.rows else self.model_copy(update={"rows": rows})

    def build(self, experts: int, routing_width: int) -> Gate:
        """Build the gate; see `models.gates.build_gate`."""
        del routing_width  # it routes by ids
        return HashGate(self, experts)


class HashGate(Gate):
    """weights = one-hot(expert of the row's id)."""

    table_R: Tensor
    one: Tensor

    def __init__(self, config: HashConfig, experts: int) -> None:
        """Draw the polynomial from the seed, and deal the ids out if balanced.

        Raises ConfigError for a balanced gate over no ids.
        """
        super().__init__(config, experts=experts, routing_width=0, logit_width=0)
        self.config = config
        self.selectors = 1
        self.coefficients = _coefficients(config.seed)
        self.balanced = config.assignment == "balanced"
        if self.balanced and config.rows == 0:
            message = "a balanced hash gate needs gate.rows, the number of ids of its feature"
            raise ConfigError(message)
        rows = config.rows if self.balanced else 0
        # Dealt in the order of their hashes: every expert gets as many ids, give or take one.
        order_R = self.hash(torch.arange(rows)).argsort(stable=True).argsort(stable=True)
        self.register_buffer("table_R", order_R % experts)
        # Without parameters, this is what tells the type that the module was moved to.
        self.register_buffer("one", torch.ones(()), persistent=False)

    def most_chosen(self) -> int:
        """Bound on the selection: 1."""
        return 1

    def choose(self, routed: Tensor) -> Choice:
        """Look the ids [B] up, or hash them."""
        selected_BE = members(self.expert_of(routed).unsqueeze(-1), None, self.experts)
        return Choice(selected_BE.to(self.one.dtype), selected_BE, {})

    def expert_of(self, ids_B: Tensor) -> Tensor:
        """The expert of each id, int64 [B]."""
        hashed_B = self.hash(ids_B) % self.experts
        rows = self.table_R.shape[0]
        if rows == 0:
            return hashed_B
        known_B = (ids_B >= 0) & (ids_B < rows)
        return torch.where(known_B, self.table_R[ids_B.clamp(0, rows - 1)], hashed_B)

    def hash(self, ids_B: Tensor) -> Tensor:
        """Hash ids to 0..2^31 - 2, int64 [B]."""
        ids_B = ids_B.to(torch.int64) % _PRIME
        constant, linear, square = self.coefficients
        return ((square * ids_B + linear) % _PRIME * ids_B + constant) % _PRIME

    def fit(self, counts_R: Tensor) -> None:
        """Deal ids out so that experts get equally many rows: the most frequent first, each to the least loaded.

        `counts_R`: how often each id occurs in training, [R]. Raises ConfigError unless balanced over as many ids.
        """
        if counts_R.shape != self.table_R.shape:
            message = (
                f"counts of {counts_R.shape[0]} ids were given to a hash gate over {self.table_R.shape[0]}: "
                "set gate.assignment to balanced and gate.rows to the number of ids"
            )
            raise ConfigError(message)
        loads: list[tuple[float, int]] = [(0.0, expert) for expert in range(self.experts)]
        counts = counts_R.tolist()
        table_R = torch.empty_like(self.table_R, device="cpu")
        for row in sorted(range(len(counts)), key=lambda row: -counts[row]):
            load, expert = loads[0]
            table_R[row] = expert
            heapq.heapreplace(loads, (load + counts[row], expert))
        self.table_R.copy_(table_R)


def _coefficients(seed: int) -> tuple[int, int, int]:
    digest = hashlib.blake2b(str(seed).encode(), digest_size=24).digest()
    constant, linear, square = (int.from_bytes(digest[at : at + 8], "little") % _PRIME for at in (0, 8, 16))
    return constant, linear, square or 1
