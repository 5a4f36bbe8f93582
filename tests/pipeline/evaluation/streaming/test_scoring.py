"""Several processes score what one scores, in the same order."""

import numpy as np
import pytest

from pipeline.evaluation import predictions
from pipeline.evaluation.predictions import joined, part_bounds
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


def test_parts_of_the_rows_are_those_of_the_whole(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "BATCH_ROWS", 300)
    monkeypatch.setattr(predictions, "STRETCH_BATCHES", 2)
    engine = Engine(judged.bundle)
    whole = joined(list(predictions.predict_stretches(engine, judged.test, engine.schema)))
    parts = [
        list(predictions.predict_stretches(engine, judged.test, engine.schema, None, (number, 3)))
        for number in range(3)
    ]
    sizes = [sum(stretch.rows for stretch in part) for part in parts]
    assert sizes == [end - begin for begin, end in (part_bounds(2000, (number, 3)) for number in range(3))]
    together = joined([stretch for part in parts for stretch in part])
    for name, array in whole.by_row().items():
        assert np.allclose(getattr(together, name), array, rtol=1e-6), name
