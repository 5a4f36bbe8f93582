"""COMET's protocol: what a budget chooses, and that unwatched pairs are unwatched."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.budgets import after_budget, enough, redrawn
from benchmarks.comet_protocol import popularity, read_pairs

TRIALS = [(valid, valid + 0.1) for valid in (0.5, 0.3, 0.4, 0.2, 0.6)]


@pytest.mark.parametrize("budget", range(1, 6))
def test_a_budget_costs_the_mean_over_all_ways_to_draw_it(budget: int) -> None:
    chosen = [min(drawn)[1] for drawn in combinations(TRIALS, budget)]
    assert after_budget(TRIALS, budget) == pytest.approx(np.mean(chosen))


def test_the_least_budget_that_reaches_a_goal_is_found() -> None:
    assert enough(TRIALS, after_budget(TRIALS, 3)) == 3
    assert enough(TRIALS, 0.29) is None


def test_gates_that_are_alike_differ_by_nothing_however_trials_are_drawn() -> None:
    loss, gap = redrawn(TRIALS, TRIALS, 2)
    assert loss.low < loss.mean < loss.high
    assert tuple(gap) == (0.0, 0.0, 0.0)


def test_every_rating_has_an_unwatched_pair_beside_it_and_popularity_ranks_them(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    drawn = np.stack([draw.integers(0, 40, 600), draw.zipf(1.6, 600) % 50], axis=1)
    seen = sorted({(int(user), int(film)) for user, film in drawn})
    users, films = zip(*seen, strict=True)
    rating = draw.integers(1, 6, len(seen)).astype(np.float32)
    pq.write_table(pa.table({"user_id": users, "item_id": films, "rating": rating}), tmp_path / "events.parquet")
    train, valid, test, spread = read_pairs(tmp_path / "events.parquet")
    parts = [torch.cat([part[column] for part in (train, valid, test)]) for column in range(3)]
    positive = {(int(u), int(f)) for u, f, w in zip(*parts, strict=True) if w == 1}
    negative = [(int(u), int(f)) for u, f, w in zip(*parts, strict=True) if w == 0]
    assert len(positive) == len(negative) == len(seen)
    assert not positive & set(negative)
    area, error = popularity(train, test, spread)
    assert 0.5 < area < 1.0
    assert error > 0.0
