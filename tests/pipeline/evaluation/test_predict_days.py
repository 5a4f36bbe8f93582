"""What a file of predictions says of the experts."""

import numpy as np

from pipeline.evaluation.predict_days import expert_columns
from serving.graph.answer import ExpertUse, GateUse


def test_several_gates_of_a_task_are_one_column_of_all_their_experts() -> None:
    first, second, other = (
        np.array(rows, np.float32)
        for rows in ([[0.4, 0.6, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 1]], [[1, 0, 0], [0, 0, 0]])
    )
    gates = GateUse(0, ("like", "watch"), first), GateUse(0, ("like",), second), GateUse(1, ("like",), other)
    columns = {name: column.to_pylist() for name, column in expert_columns(ExpertUse(gates)).items()}
    assert columns == {
        "experts__0__like": [[0, 1, 2], [1, 2]],
        "experts__0__watch": [[0, 1], [1]],
        "experts__1__like": [[0], []],
    }
