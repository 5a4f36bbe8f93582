"""Several processes score what one scores, in the same order."""

from pathlib import Path

import numpy as np
import pytest

from contract.errors import DataError, PredictionError
from pipeline.evaluation import predictions
from pipeline.evaluation.predictions import joined
from pipeline.evaluation.streaming import scoring
from pipeline.evaluation.streaming.rows_to_score import RowsToScore
from pipeline.evaluation.streaming.scoring import score
from serving.graph.engine import Engine
from tests.pipeline.conftest import Judged


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one_in_their_order(judged: Judged) -> None:
    one = joined(list(score(judged.bundle, judged.test, 2000)))
    done: list[int] = []
    two = joined(list(score(judged.bundle, judged.test, 2000, processes=2, progress=lambda rows, _: done.append(rows))))
    assert done[-1] == two.rows == 2000
    assert two.about() == one.about()
    for name, array in one.by_row().items():
        assert np.array_equal(getattr(two, name), array), name


def test_an_error_of_another_process_is_the_callers(judged: Judged, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is nothing"):
        list(score(judged.bundle, tmp_path / "nothing", 2000, processes=2))


def test_a_process_that_is_killed_is_said_to_be(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    started = scoring.ScoringProcess.__init__

    def killed(self: scoring.ScoringProcess, job: dict[str, object]) -> None:
        started(self, job)
        self._process.kill()

    monkeypatch.setattr(scoring.ScoringProcess, "__init__", killed)
    with pytest.raises(PredictionError, match=r"ended with code -9; if memory was short, use fewer --processes"):
        list(score(judged.bundle, judged.test, 2000, processes=2))


def test_a_directory_beside_the_caller_is_not_taken_for_the_program(
    judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    assert sum(part.rows for part in score(judged.bundle, judged.test, 2000, processes=2)) == 2000


def test_stretches_of_the_rows_are_those_of_the_whole(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "BATCH_ROWS", 300)
    monkeypatch.setattr(predictions, "STRETCH_BATCHES", 2)
    engine = Engine(judged.bundle)
    whole = joined(list(predictions.predict_stretches(engine, judged.test, engine.schema)))
    left = RowsToScore(2000, workers=2)
    last = left.take_last()
    assert last == (200 // 300 * 300, 2000)
    front = list(predictions.predict_stretches(engine, judged.test, engine.schema, take=left.take_first))
    assert front == []
    ends = [(0, 900), (900, 1500), (1500, 2000)]
    parts = [list(predictions.predict_stretches(engine, judged.test, engine.schema, rows=each)) for each in ends]
    assert [sum(stretch.rows for stretch in part) for part in parts] == [900, 600, 500]
    together = joined([stretch for part in parts for stretch in part])
    for name, array in whole.by_row().items():
        assert np.allclose(getattr(together, name), array, rtol=1e-6), name


def test_rows_are_taken_once_each_from_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "BATCH_ROWS", 10)
    left, taken, at = RowsToScore(1005, workers=2), [], 0
    while left.take_first(at + 10):
        taken.append((at, at + 10))
        at += 10
        if at % 30 == 0 and (last := left.take_last()) is not None:
            taken.append(last)
    while (last := left.take_last()) is not None:
        taken.append(last)
    ends = sorted(taken)
    assert ends[0][0] == 0
    assert ends[-1][1] == 1005
    assert [end for _, end in ends[:-1]] == [begin for begin, _ in ends[1:]]
