"""Labels and settings before the first step: which are refused, and what is odd about the others."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from contract.errors import ConfigError, DataError
from pipeline.training.data_check import check_rows
from pipeline.training.train_config import TrainConfig
from tests.models.small import small_schema

SCHEMA = small_schema()


class Rows:
    """Stands for a reader of the training rows."""

    def __init__(self, rating: NDArray[Any]) -> None:
        self.total_rows = len(rating)
        self._labels = {"like": np.arange(len(rating)) % 2, "rating": rating}

    def labels_of(self, task: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self._labels[task].astype(np.float32), np.ones(self.total_rows, np.float32)


def check(rating: NDArray[Any]) -> list[str]:
    reader: Any = Rows(rating)
    return [each.remark for each in check_rows(reader, SCHEMA)]


@pytest.mark.parametrize("rows", [1, 20, 4000])
def test_a_huge_number_that_stands_for_none_is_refused_in_however_many_rows(rows: int) -> None:
    rating = np.random.default_rng(0).normal(3.0, 1.0, 10_000)
    rating[:rows] = 1e30
    with pytest.raises(DataError, match=f"task 'rating': the label of {rows} of 10000 training rows is 1e\\+30"):
        check(rating)


def test_a_huge_number_beside_mostly_zeros_is_refused() -> None:
    with pytest.raises(DataError, match="the label of 40 of 10000 training rows is -1e\\+18"):
        check(np.repeat([0.0, 3.0, -1e18], [9900, 60, 40]))


@pytest.mark.parametrize(
    "rating",
    [
        np.exp(3.0 * np.random.default_rng(0).normal(size=100_000)),
        np.repeat([0.0, 1e-4, 500.0], [9400, 400, 200]),
        np.repeat([0.0, 5.0], [9999, 1]),
    ],
    ids=["heavy tail", "tiny and large sums", "one of ten thousand"],
)
def test_labels_of_a_wide_range_train(rating: NDArray[Any]) -> None:
    assert check(rating) == ["", ""]


def test_a_label_without_variation_is_told() -> None:
    assert check(np.full(100, 7.0)) == ["", "task 'rating': its label is 7 in all 100 training rows that count"]


def test_weights_in_the_settings_of_which_all_are_zero_are_refused() -> None:
    reader: Any = Rows(np.arange(100.0))
    assert check_rows(reader, SCHEMA, {"like": 0.0})
    with pytest.raises(
        ConfigError, match=r"task_weights is 0 for every task .*\(like, rating\): there is nothing to l"
    ):
        check_rows(reader, SCHEMA, {"like": 0.0, "rating": 0.0})


@pytest.mark.parametrize("setting", ["learning_rate", "embedding_learning_rate", "weight_decay", "gradient_clip"])
def test_rates_are_finite_numbers(setting: str) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        TrainConfig.model_validate({setting: float("inf")})
