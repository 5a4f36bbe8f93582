"""The graph over prepared items answers as the model does, for all that the pairs of gates and architectures know."""

from pathlib import Path
from typing import Any

import onnx
import pytest

from contract.errors import ExportError
from contract.inputs import PartInputs
from contract.schema import DenseSpec, IdSpec
from models.export import export
from models.export.prepared_export import PreparedGraph, export_prepared
from models.export_graph.item_shares import PreparedItems
from models.export_graph.serving_graph import ServingGraph
from tests.models.small import inputs, lively_ranker, small_config, small_schema
from tests.pipeline.test_pairs import ARCHITECTURES, GATES, pairs

SCHEMA = small_schema(
    features=(
        IdSpec(name="user", kind="id", side="user", rows=40),
        IdSpec(name="item", kind="id", side="item", rows=30),
        IdSpec(name="genres", kind="id_list", side="item", rows=9, pooling="sum", max_length=5),
        DenseSpec(name="age", side="user", encoding="standardise"),
        DenseSpec(name="price", side="item", encoding="piecewise_linear", edges=(0.0, 1.0, 2.0, 3.0)),
        DenseSpec(name="rate", side="pair", keys=("user", "item"), encoding="piecewise_linear", edges=(0.0, 1.0, 2.0)),
    ),
    keys=({"name": "user", "side": "user"}, {"name": "item", "side": "item"}),
    user_key="user",
    item_key="item",
)
PREPARED = frozenset({"item", "genres", "price"})
SIZES: dict[str, Any] = {"experts": 3, "expert_widths": (8, 4), "tower_widths": (8,)}


def write(folder: Path, form: Any = "auto", **changes: Any) -> tuple[PreparedGraph, float]:
    ranker = lively_ranker(SCHEMA, small_config(**(SIZES | changes)))
    sample = inputs(SCHEMA, 100, 100)
    report = export(ranker, SCHEMA, sample, folder / "model.onnx", form)
    prepared = PreparedGraph(ranker, report, PreparedItems(PREPARED, mapped_items()))
    return prepared, export_prepared(prepared, sample, folder / "prepared.onnx").worst


def mapped_items() -> PartInputs:
    """As out of a file that is mapped into memory: nobody may write there, of which torch warns."""
    part = inputs(SCHEMA, 1, 50, seed=3).candidate
    for array in (part.ids, part.list_values, part.list_lengths, part.dense):
        array.flags.writeable = False
    return part


def some_pairs() -> list[Any]:
    """In every run two gates of the plainest architecture, each of another form; all others with `make pairs`."""
    quick = {("mmoe", "top_k"), ("mmoe", "hash")}
    marks = (pytest.mark.slow, pytest.mark.pairs)
    return [
        pytest.param(*each, marks=() if each in quick else marks)
        for each in (tuple(param.values) for param in pairs())
        # HoME's feature gates read all features of a row at once.
        if each[0] != "home"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "gate"), some_pairs())
def test_a_pair_of_gate_and_architecture_answers_alike_over_prepared_items(
    architecture: str, gate: str, tmp_path: Path
) -> None:
    named = {"name": architecture.partition("+")[0], **ARCHITECTURES.get(architecture, {})}
    form = "dense" if gate == "softmax" else "sparse"
    # Two tasks and what they share take a third of an embedding each.
    sizes = {"embedding_dim": 12} if architecture == "stem" else {}
    assert write(tmp_path, form, architecture=named, gate={"name": gate, **GATES[gate]}, **sizes)[1] <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"bottom": (16,), "gate_scope": "shared"},
        {"bottom": (16,), "gate_scope": "shared", "members": 2},
        {"routing": "static"},
        {"routing": "user"},
        {"architecture": {"name": "shared_bottom"}},
        {"table_dims": {"item": 4, "user": 12}},
    ],
    ids=["bottom", "bottoms of members", "static", "routed by user", "shared bottom", "tables of several widths"],
)
def test_every_kind_of_first_layer_has_a_share_of_the_item(changes: dict[str, Any], tmp_path: Path) -> None:
    gate = {} if "architecture" in changes else {"gate": {"name": "top_k", "k": 2}}
    assert write(tmp_path, **changes, **gate)[1] <= 1e-5


@pytest.mark.slow
def test_a_candidate_brings_its_row_and_the_pair_features_alone(tmp_path: Path) -> None:
    prepared, _ = write(tmp_path, bottom=(16,), gate={"name": "top_k", "k": 2})
    model = onnx.load(tmp_path / "prepared.onnx", load_external_data=False)
    shapes = {node.name: len(node.type.tensor_type.shape.dim) for node in model.graph.input}
    assert shapes == {"request_ids": 2, "request_dense": 2, "candidate_dense": 2, "candidate_rows": 1}
    # 8 columns of an id, 8 of a list, 3 of a number, times 16 units of the first layer.
    assert (prepared.bytes_an_item, prepared.saved) == (64, 19 * 16)
    assert (tmp_path / "prepared.bin").stat().st_size == 50 * 64


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"interaction": {"name": "dcn_v2"}}, "interaction"),
        ({"interaction": {"name": "autoint"}}, "interaction"),
        ({"architecture": {"name": "home", **ARCHITECTURES["home"]}}, "feature gate"),
    ],
    ids=["dcn_v2", "autoint", "home"],
)
def test_what_reads_all_features_at_once_leaves_nothing_to_prepare(changes: dict[str, Any], what: str) -> None:
    ranker = lively_ranker(SCHEMA, small_config(**(SIZES | changes)))
    items = PreparedItems(PREPARED, inputs(SCHEMA, 1, 50, seed=3).candidate)
    with pytest.raises(ExportError, match=f"the {what} reads all features of a row at once"):
        ServingGraph(ranker, "dense", items)
