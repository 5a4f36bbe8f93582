"""The graph that takes the sum of prepared rows of items, users and pairs answers as the model does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from contract.errors import ExportError
from models.export import export
from models.export.onnx_file import operators
from models.export.prepared_export import export_shared
from models.export_graph.shared_tables import PreparedShares, SharedTable
from tests.models.export.test_prepared import PREPARED, SCHEMA, SIZES
from tests.models.small import inputs, lively_ranker, small_config
from tests.pipeline.test_pairs import ARCHITECTURES, GATES, pairs

ITEM = SharedTable("item", "candidate", PREPARED, inputs(SCHEMA, 1, 50, seed=3).candidate)
PAIR = SharedTable("pair_0", "candidate", frozenset({"rate"}), inputs(SCHEMA, 1, 30, seed=4).candidate)
USER = SharedTable("user", "request", frozenset({"age", "user"}), inputs(SCHEMA, 20, 20, seed=5).request)


def answered(folder: Path, *tables: SharedTable, form: Any = "sparse", **changes: Any) -> float:
    ranker = lively_ranker(SCHEMA, small_config(**(SIZES | {"bottom": (16,)} | changes)))
    sample = inputs(SCHEMA, 100, 100)
    report = export(ranker, SCHEMA, sample, folder / "model.onnx", form)
    return export_shared(ranker, report, PreparedShares(ranker, tables), sample, folder / "prepared.onnx").worst


TOP: dict[str, Any] = {"gate": {"name": "top_k", "k": 2}}


@pytest.mark.parametrize("tables", [(ITEM,), (ITEM, PAIR), (ITEM, PAIR, USER)], ids=["items", "pairs", "users"])
def test_prepared_rows_of_any_tables_lead_to_the_model_s_answers(tables: Any, tmp_path: Path) -> None:
    assert answered(tmp_path, *tables, **TOP) <= 1e-5
    graph = onnx.load(tmp_path / "prepared.onnx").graph
    names = {node.name for node in graph.input}
    assert "candidate_shares" in names
    assert ("candidate_dense" in names, "request_ids" in names) == (len(tables) == 1, len(tables) < 3)


def test_several_members_first_layers_are_one_sum(tmp_path: Path) -> None:
    assert answered(tmp_path, ITEM, PAIR, USER, **TOP, members=2) <= 1e-5


@pytest.mark.slow
@pytest.mark.pairs
@pytest.mark.parametrize("form", ["wide", "moe"])
def test_the_forms_for_a_card_take_prepared_sums_too(form: Any, tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(**(SIZES | {"bottom": (16,)} | TOP)))
    sample = inputs(SCHEMA, 100, 100)
    report = export(ranker, SCHEMA, sample, tmp_path / "model.onnx", "sparse")
    card = replace(report, form=form)
    shares = PreparedShares(ranker, (ITEM, PAIR, USER))
    assert export_shared(ranker, card, shares, sample, tmp_path / "prepared.onnx").worst <= 1e-5
    used = set(operators(tmp_path / "prepared.onnx"))
    assert ("com.microsoft.MoE" in used) == (form == "moe")
    assert "NonZero" not in used


def some_pairs() -> list[Any]:
    """One in every run, all others with `make pairs`; not those that no one sum serves, which are refused."""
    marks = (pytest.mark.slow, pytest.mark.pairs)
    # Gates that route by the item's id, and embeddings of each task's own, which no shared layer reads.
    found = (tuple(param.values) for param in pairs())
    return [
        pytest.param(*each, marks=() if each == ("mmoe", "dselect_k") else marks)
        for each in found
        if each[1] not in {"hash", "mask_moe"} and each[0] != "stem"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "gate"), some_pairs())
def test_a_pair_of_gate_and_architecture_answers_alike_over_prepared_sums(
    architecture: str, gate: str, tmp_path: Path
) -> None:
    named = {"name": architecture.partition("+")[0], **ARCHITECTURES.get(architecture, {})}
    form = "dense" if gate == "softmax" else "sparse"
    changes = {"architecture": named, "gate": {"name": gate, **GATES[gate]}}
    assert answered(tmp_path, ITEM, PAIR, USER, form=form, **changes) <= 1e-5


@pytest.mark.parametrize(
    ("changes", "tables", "why"),
    [
        ({"bottom": ()}, (ITEM,), "each expert's first layer reads the inputs"),
        ({"interaction": {"name": "dcn_v2"}}, (ITEM,), "an interaction of all features reads the inputs"),
        ({"routing": "user"}, (ITEM, USER), "route by the user's columns"),
        ({"gate": {"name": "hash", **GATES["hash"]}}, (ITEM,), "routes by"),
    ],
    ids=["no bottom", "dcn_v2", "routed by user", "hash"],
)
def test_a_model_that_no_one_sum_serves_is_refused(changes: Any, tables: Any, why: str) -> None:
    ranker = lively_ranker(SCHEMA, small_config(**(SIZES | {"bottom": (16,)} | TOP | changes)))
    with pytest.raises(ExportError, match=why):
        PreparedShares(ranker, tables)
