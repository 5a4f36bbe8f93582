"""The combined score's formulas and their checks."""

import numpy as np
import pytest
from pydantic import ValidationError

from contract.errors import ConfigError
from contract.schema import TaskSpec
from contract.score import Score, ScoreConfig, default_score

TASKS = (TaskSpec(name="like", kind="binary"), TaskSpec(name="watch", kind="regression"))
PREDICTIONS = {"like": np.array([0.1, 0.9], np.float32), "watch": np.array([2.0, -1.0], np.float32)}


def test_a_weighted_sum_adds_weighted_tasks() -> None:
    score = Score(ScoreConfig(weights={"like": 2.0, "watch": 0.5}), TASKS)
    assert score(PREDICTIONS).tolist() == pytest.approx([1.2, 1.3])
    assert score(PREDICTIONS).dtype == np.float32


def test_a_product_of_powers_multiplies_and_floors_what_is_negative() -> None:
    score = Score(ScoreConfig(form="product_of_powers", weights={"like": 1.0, "watch": 2.0}, floor=0.01), TASKS)
    assert score(PREDICTIONS).tolist() == pytest.approx([0.4, 0.9 * 1e-4])


def test_extreme_formulas_stay_finite() -> None:
    big = {"like": np.array([3e38, 0.0], np.float32), "watch": np.array([3e38, -3e38], np.float32)}
    for config in (
        ScoreConfig(weights={"like": 1e6, "watch": 1e6}),
        ScoreConfig(form="product_of_powers", weights={"like": 16.0, "watch": -16.0}),
        ScoreConfig(form="product_of_powers", weights={"like": 16.0, "watch": 16.0}),
    ):
        assert np.isfinite(Score(config, TASKS)(big)).all()


def test_a_task_that_the_model_does_not_predict_is_refused() -> None:
    with pytest.raises(ConfigError, match="'share', but the model predicts like, watch"):
        Score(ScoreConfig(weights={"share": 1.0}), TASKS)


@pytest.mark.parametrize("weights", [{}, {"like": float("nan")}, {"like": 1e7}, {"like": 0.0}])
def test_weights_that_make_no_score_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ScoreConfig(weights=weights)


def test_an_exponent_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ValidationError, match="allows -16 to 16"):
        ScoreConfig(form="product_of_powers", weights={"like": 17.0})


def test_the_version_follows_the_formula() -> None:
    one, same, other = (ScoreConfig(weights={"like": w}) for w in (1.0, 1.0, 2.0))
    assert one.version == same.version != other.version
    assert len(one.version) == 12


def test_formulas_read_as_people_write_them() -> None:
    assert str(ScoreConfig(weights={"like": 1.0, "watch": 0.5})) == "1 * like + 0.5 * watch"
    assert str(ScoreConfig(form="product_of_powers", weights={"like": 2.0})) == "max(like, 1e-06) ** 2"


def test_the_default_is_the_mean_of_the_binary_tasks() -> None:
    assert default_score(TASKS).weights == {"like": 1.0}
    assert default_score(TASKS[1:]).weights == {"watch": 1.0}
