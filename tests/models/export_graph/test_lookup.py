"""The graph's lookup against a plain loop, over any ids and any lists."""

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.schema import DenseSpec, IdSpec, Part
from models.export.parity_sample import sanitised
from models.export_graph.lookup import PartLookup
from models.input_layout import TableDims, part_layout
from tests.models.small import inputs, small_schema

DIM = 3
OFFSETS = {"a": 0, "shared": 4, "c": 10}
TABLE = torch.cat([torch.arange(15 * DIM, dtype=torch.float32).view(15, DIM) + 1.0, torch.zeros(1, DIM)])
PART = Part(
    ids=(IdSpec(name="a", kind="id", side="item", rows=4),),
    lists=(
        IdSpec(name="b", kind="id_list", side="item", rows=6, table="shared", pooling="sum"),
        IdSpec(name="c", kind="id_list", side="item", rows=5, pooling="mean"),
    ),
    dense=(
        DenseSpec(name="d", side="item", encoding="piecewise_linear", edges=(0.0, 1.0, 2.0)),
        DenseSpec(name="e", side="item", encoding="standardise"),
    ),
)
ANY_ID = st.one_of(st.integers(-3, 8), st.integers(-(2**63), 2**63 - 1))


def known(spec: IdSpec, value: int) -> int:
    return OFFSETS[spec.table_name] + (value if 0 <= value < spec.rows else 0)


def by_hand(row: dict[str, Any]) -> list[float]:
    columns = TABLE[known(PART.ids[0], row["a"])].tolist()
    for spec in PART.lists:
        vectors = [TABLE[known(spec, value)] for value in row[spec.name]]
        total = torch.stack(vectors).sum(dim=0) if vectors else torch.zeros(DIM)
        columns += (total / max(len(vectors), 1) if spec.pooling == "mean" else total).tolist()
    return [*columns, row["e"], *(min(max(row["d"] - bin_, 0.0), 1.0) for bin_ in range(2))]


ROW = st.fixed_dictionaries(
    {
        "a": ANY_ID,
        "b": st.lists(ANY_ID, max_size=4),
        "c": st.lists(ANY_ID, max_size=4),
        "d": st.sampled_from([-1.0, 0.0, 0.25, 1.5, 2.0]),
        "e": st.sampled_from([-2.0, 0.0, 3.5]),
    }
)


@settings(deadline=None, max_examples=60)
@given(st.lists(ROW, min_size=1, max_size=5))
def test_any_rows_look_up_as_by_hand(rows: list[dict[str, Any]]) -> None:
    lookup = PartLookup(part_layout("candidate", PART), OFFSETS, TableDims(DIM))
    tensors = {
        "candidate_ids": torch.tensor([[row["a"]] for row in rows]),
        "candidate_list_values": torch.tensor([v for name in "bc" for row in rows for v in row[name]]).long(),
        "candidate_list_lengths": torch.tensor([[len(row[name]) for row in rows] for name in "bc"]),
        "candidate_dense": torch.tensor([[row["d"], row["e"]] for row in rows]),
    }
    columns = lookup({DIM: TABLE}, tensors)
    assert columns is not None
    torch.testing.assert_close(columns, torch.tensor([by_hand(row) for row in rows]))


def test_what_the_eager_model_gets_differs_only_in_the_strange_ids() -> None:
    schema = small_schema()
    clean = inputs(schema, 4, 4)
    again = sanitised(clean, schema)
    for name, array in clean.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)
