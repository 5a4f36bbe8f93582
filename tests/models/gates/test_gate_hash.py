"""The hash gate: stable everywhere, total over ids, balanced where asked."""

import pytest
import torch
from pydantic import ValidationError

from contract.errors import ConfigError
from models.gates import HashConfig, Regularisers
from models.gates.hash import HashGate


def gate(seed: int = 0, rows: int = 0, experts: int = 8) -> HashGate:
    assignment = "balanced" if rows else "random"
    config = HashConfig.model_validate({"feature": "user", "assignment": assignment, "rows": rows, "seed": seed})
    return HashGate(config, experts)


def test_the_hash_keeps_its_golden_values() -> None:
    ids = torch.tensor([0, 1, 2, 3, 1000, 2**31 - 1, 2**40, -1])
    assert gate().hash(ids).tolist() == [
        1260181763,
        1630533745,
        1368820274,
        475041350,
        7050331,
        1260181763,
        42912757,
        257764328,
    ]
    assert gate(seed=1).hash(ids).tolist() == [
        67694396,
        2132203859,
        1878110524,
        1452898038,
        973566023,
        67694396,
        781264240,
        2127033076,
    ]
    assert gate(rows=8, experts=4).table_R.tolist() == [0, 3, 2, 1, 3, 2, 0, 1]


def test_the_hash_is_the_stated_polynomial_without_overflow() -> None:
    constant, linear, square = gate().coefficients
    prime = 2**31 - 1
    ids = [0, 1, prime - 1, prime, 2**62, 123456789]
    expected = [(square * (x % prime) ** 2 + linear * (x % prime) + constant) % prime for x in ids]
    assert gate().hash(torch.tensor(ids)).tolist() == expected


def test_random_assignment_spreads_consecutive_ids_over_the_experts() -> None:
    counts = torch.bincount(gate().expert_of(torch.arange(80_000)), minlength=8)
    assert int((counts - 10_000).abs().max()) < 400


def test_balanced_assignment_gives_every_expert_as_many_ids_and_hashes_new_ones() -> None:
    balanced = gate(rows=803)
    counts = torch.bincount(balanced.expert_of(torch.arange(803)), minlength=8)
    assert int(counts.max() - counts.min()) <= 1
    new = torch.arange(803, 2000)
    assert torch.equal(balanced.expert_of(new), gate().expert_of(new))


def test_fitted_assignment_gives_every_expert_as_many_rows() -> None:
    balanced = gate(rows=1000)
    counts = (10_000 / torch.arange(1, 1001)).long()
    balanced.fit(counts)
    loads = torch.zeros(8, dtype=torch.int64).index_add(0, balanced.expert_of(torch.arange(1000)), counts)
    # The most frequent id alone is above an eighth of all rows; the others share what is left evenly.
    assert max(loads.tolist()) == 10_000
    assert max(loads.tolist()) - min(loads.tolist()) < 2000


def test_a_fitted_assignment_is_saved_and_loaded() -> None:
    fitted, fresh = gate(rows=50), gate(rows=50)
    fitted.fit(torch.arange(50))
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh.table_R, fitted.table_R)


def test_counts_of_another_feature_are_refused() -> None:
    with pytest.raises(ConfigError, match="counts of 7 ids were given to a hash gate over 50"):
        gate(rows=50).fit(torch.ones(7))


def test_regularisers_of_a_gate_that_learns_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="have no effect"):
        HashConfig(feature="user", regularisers=Regularisers(importance=0.1))


def test_a_balanced_gate_without_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs gate\.rows"):
        HashConfig(feature="user", assignment="balanced").build(4, 0)
