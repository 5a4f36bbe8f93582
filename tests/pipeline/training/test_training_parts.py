"""The parts of training: schedule, progress, loss meter, interruption."""

import math
import os
import signal
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import ConfigError
from models.losses import Losses
from pipeline.training.interruption import watch_interruption
from pipeline.training.learning_rate import START, rate_factor
from pipeline.training.loss_meter import LossMeter
from pipeline.training.run_progress import EpochRecord, RunProgress
from pipeline.training.stopping_metric import StoppingMetric
from pipeline.training.train_config import TrainConfig
from pipeline.training.training_log import flat, summary
from tests.models.small import TASKS

PATIENCE = 2


@given(st.integers(1, 10_000), st.floats(0.0, 0.99))
def test_one_cycle_starts_low_peaks_at_the_full_rate_and_ends_near_nothing(total: int, warmup: float) -> None:
    config = TrainConfig(warmup=warmup)
    factors = [rate_factor(config, step, total) for step in range(0, total + 1, max(total // 100, 1))]
    assert factors[0] == pytest.approx(START if warmup > 0 else 1.0)
    assert all(0.0 <= factor <= 1.0 + 1e-9 for factor in factors)
    assert rate_factor(config, total, total) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("cosine", [1.0, 0.505, 0.01]),
        ("exponential", [1.0, 0.1, 0.01]),
        ("step", [1.0, 0.1, 0.01]),
    ],
)
def test_schedules_fall_from_the_full_rate_to_their_end(schedule: str, factors: list[float]) -> None:
    config = TrainConfig.model_validate({"schedule": schedule})
    assert [rate_factor(config, step, 100) for step in (0, 50, 100)] == pytest.approx(factors)
    falling = [rate_factor(config, step, 100) for step in range(101)]
    assert falling == sorted(falling, reverse=True)


def test_a_constant_schedule_is_constant() -> None:
    config = TrainConfig(schedule="constant")
    assert {rate_factor(config, step, 100) for step in range(100)} == {1.0}


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_early_stopping_remembers_the_best_epoch_and_stops_after_patience(values: list[float]) -> None:
    progress, seen = RunProgress(), []
    for value in values:
        progress = progress.after_step(0).after_epoch({}, value, PATIENCE)
        seen.append(value)
        if progress.stopped:
            break
    assert progress.best is not None
    assert progress.best.epoch == seen.index(max(seen)) + 1
    assert progress.stopped == (len(seen) - progress.best.epoch >= 2)
    assert progress.step == len(seen)


def test_without_validation_the_last_epoch_is_best() -> None:
    progress = RunProgress().after_epoch({}, None, PATIENCE).after_epoch({}, None, PATIENCE)
    assert progress.best is not None
    assert progress.best.epoch == 2


def test_the_default_metric_joins_auc_and_explained_variance() -> None:
    metrics = {"like": {"auc": 0.75}, "rating": {"rmse": 0.55}}
    assert StoppingMetric.of("mean", TASKS).value(metrics) == pytest.approx((0.75 + 1 - 0.25) / 2)
    assert StoppingMetric.of("like", TASKS).value(metrics) == 0.75
    assert StoppingMetric.of("mean", TASKS).value({}) is None
    assert StoppingMetric.of("mean", TASKS).without({"rating"}).value(metrics) == 0.75
    assert StoppingMetric.of("rating", TASKS).without({"rating"}).value(metrics) == pytest.approx(1 - 0.25)


def test_any_metric_of_the_evaluation_can_say_which_epoch_is_best() -> None:
    metrics = {"like": {"auc": 0.75, "ne": 0.9, "calibration": 1.25}, "rating": {"rmse": 0.55, "calibration": 1.0}}
    assert StoppingMetric.of("like.ne", TASKS).value(metrics) == -0.9
    assert StoppingMetric.of("rating.rmse", TASKS).value(metrics) == -0.55
    assert StoppingMetric.of("mean.calibration", TASKS).value(metrics) == pytest.approx(-math.log(1.25) / 2)
    with pytest.raises(ConfigError, match=r"'like\.rmse'; after the dot may stand: auc, .*gauc"):
        StoppingMetric.of("like.rmse", TASKS)
    with pytest.raises(ConfigError, match=r"gauc.*after the dot may stand: auc, pr_auc, lift, log_loss, ne, cal"):
        StoppingMetric.of("like.gauc", TASKS, grouped=False)


def test_a_check_within_an_epoch_counts_for_patience() -> None:
    progress = RunProgress().after_step(5).after_check({}, 0.7, PATIENCE).after_step(9).after_check({}, 0.6, PATIENCE)
    assert (progress.best and progress.best.step, progress.since_best, progress.stopped) == (1, 1, False)
    ended = progress.after_epoch({}, 0.65, PATIENCE)
    assert (ended.epoch, ended.row, len(ended.checks), ended.stopped) == (1, 0, 2, True)


def losses(total: float, like: float = 1.0) -> Losses:
    return Losses(torch.tensor(total), torch.tensor([like, 2.0]), {"entropy": torch.tensor(0.5)})


def test_a_loss_meter_gives_means_by_name() -> None:
    meter = LossMeter(TASKS, torch.device("cpu"))
    meter.add(losses(3.0))
    meter.add(losses(5.0, like=3.0))
    assert (meter.total, meter.tasks(), meter.penalties()) == (4.0, {"like": 2.0, "rating": 2.0}, {"entropy": 0.5})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with watch_interruption() as interruption:
        asked = [interruption.asked]
        os.kill(os.getpid(), number)
        asked.append(interruption.asked)
    assert asked == [False, True]
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_does_not_wait() -> None:
    with watch_interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert interruption.asked


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with watch_interruption():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_an_epoch_is_told_in_one_line() -> None:
    record: EpochRecord = {
        "valid": {"like": {"auc": 0.75}},
        "rows_per_second": 1234.5,
        "expert_weight": {"like": [0.5, 0.5]},
    }
    progress = RunProgress().after_epoch(record, 0.75, PATIENCE)
    assert summary(record, progress) == "epoch 1 (best): like/auc 0.7500; 1,234 rows/s"
    assert flat(record) == {"valid/like/auc": 0.75, "rows_per_second": 1234.5}
    # A validation in the middle of the epoch was better than the one at its end.
    earlier = RunProgress().after_step(512).after_check(record, 0.8, PATIENCE).after_step(1024)
    ended = earlier.after_epoch(record, 0.75, PATIENCE)
    assert summary(record, ended) == "epoch 1: like/auc 0.7500; 1,234 rows/s"
