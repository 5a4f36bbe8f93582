"""COMET's protocol: what a budget chooses, and that unwatched pairs are unwatched."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.comet_protocol import Trial, of_budget, popularity, read_pairs

TRIALS = [Trial(valid, valid + 0.1, 0.8, 1.0, 2.0) for valid in (0.5, 0.3, 0.4, 0.2, 0.6)]


def test_the_whole_budget_chooses_the_best_trial_by_validation() -> None:
    assert of_budget(TRIALS, 5) == [TRIALS[3]]


def test_a_smaller_budget_is_worse_on_average() -> None:
    mean = {budget: np.mean([each.test for each in of_budget(TRIALS, budget)]) for budget in (1, 3)}
    assert abs(mean[1] - 0.5) < 0.02
    assert 0.3 < mean[3] < mean[1]


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
