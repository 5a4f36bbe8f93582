"""The eager ranker: shapes, pairing of request and candidates, pooling, dropout of ids, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from contract.errors import ConfigError
from contract.inputs import Inputs, PartInputs
from contract.schema import DenseSpec, IdSpec, Schema, TaskSpec
from models.model_config import ModelConfig
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from tests.models.small import TASKS, inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()


def answers(ranker: Ranker, given: Inputs) -> Tensor:
    with torch.no_grad():
        return ranker.predictions(ranker(TensorInputs.from_numpy(given)).logits_BT)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("bottom", [(), (12, 6)])
@pytest.mark.parametrize("gate_scope", ["per_task", "shared"])
def test_a_ranker_answers_every_row_and_task(norm: str, bottom: tuple[int, ...], gate_scope: str) -> None:
    ranker = Ranker(SCHEMA, small_config(norm=norm, bottom=bottom, gate_scope=gate_scope))
    output = ranker(TensorInputs.from_numpy(inputs(SCHEMA, 6, 6)))
    assert output.logits_BT.shape == (6, 2)
    assert len(output.routings) == (2 if gate_scope == "per_task" else 1)
    assert "selector_entropy" in output.penalties


def test_one_request_row_answers_as_the_same_row_repeated() -> None:
    ranker = lively_ranker(SCHEMA, small_config())
    once = inputs(SCHEMA, 1, 5)
    request = once.request
    values = [np.tile(ids, 5) for ids in np.split(request.list_values, np.cumsum(request.list_lengths[:, 0])[:-1])]
    repeated = PartInputs(
        ids=np.repeat(request.ids, 5, axis=0),
        list_values=np.concatenate(values),
        list_lengths=np.repeat(request.list_lengths, 5, axis=1),
        dense=np.repeat(request.dense, 5, axis=0),
    )
    torch.testing.assert_close(answers(ranker, once), answers(ranker, Inputs(repeated, once.candidate)))


def test_request_rows_that_fit_no_candidate_count_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot pair 2 request rows with 5"):
        lively_ranker(SCHEMA, small_config())(TensorInputs.from_numpy(inputs(SCHEMA, 2, 5)))


def test_a_feature_reads_its_own_table_and_lists_pool_as_the_schema_says() -> None:
    ranker = lively_ranker(SCHEMA, small_config())
    given = TensorInputs.from_numpy(inputs(SCHEMA, 3, 3))
    with torch.no_grad():
        columns = ranker.columns(given)
    tables = ranker.table_weights()
    torch.testing.assert_close(columns[:, :8], tables["user"][given.request.ids_NF[:, 0]])
    lengths = given.request.list_lengths_LN[0].tolist()
    means = [
        tables["item"][ids].mean(dim=0) if len(ids) else torch.zeros(8)
        for ids in given.request.list_values_V.split(lengths)
    ]
    torch.testing.assert_close(columns[:, 16:24], torch.stack(means))
    request_width = ranker.layouts[0].width(ranker.config.dims)
    genres = given.candidate.list_values_V[: int(given.candidate.list_lengths_LN[0].sum())]
    sums = [tables["genres"][ids].sum(dim=0) for ids in genres.split(given.candidate.list_lengths_LN[0].tolist())]
    torch.testing.assert_close(columns[:, request_width + 8 : request_width + 16], torch.stack(sums))


def test_a_position_expands_to_clipped_distances_from_each_bin() -> None:
    schema = Schema(
        features=(DenseSpec(name="p", side="item", encoding="piecewise_linear", edges=(0.0, 1.0, 2.0, 3.0)),),
        tasks=TASKS,
    )
    empty = np.zeros((4, 0), np.int64)
    lists = np.zeros(0, np.int64), np.zeros((0, 4), np.int64)
    positions = np.array([[-1.0], [0.0], [1.25], [3.0]], np.float32)
    request = PartInputs(empty, *lists, np.zeros((4, 0), np.float32))
    given = Inputs(request, PartInputs(empty, *lists, positions))
    columns = Ranker(schema, small_config()).columns(TensorInputs.from_numpy(given))
    assert columns.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0.25, 0], [1, 1, 1]]


def test_dropped_ids_read_the_unknown_row_in_training_only_and_in_large_tables_only() -> None:
    ranker = lively_ranker(SCHEMA, small_config(id_dropout=0.9999, id_dropout_rows=50, embedding_dropout=0.0))
    given = TensorInputs.from_numpy(inputs(SCHEMA, 20, 20))
    tables = ranker.table_weights()
    with torch.no_grad():
        kept = ranker.eval().columns(given)
        dropped = ranker.train().columns(given)
    torch.testing.assert_close(dropped[:, :8], tables["user"][0].expand(20, -1))
    torch.testing.assert_close(dropped[:, 8:16], kept[:, 8:16])
    assert not torch.equal(kept[:, :8], dropped[:, :8])


def test_regression_answers_on_the_label_scale_and_starts_at_the_base_rate() -> None:
    ranker = Ranker(SCHEMA, small_config(norm="none", input_norm="none"))
    predicted = answers(ranker.eval(), inputs(SCHEMA, 50, 50)).mean(dim=0)
    assert abs(float(predicted[0]) - 0.3) < 0.15
    assert abs(float(predicted[1]) - 3.5) < 0.8


def test_a_schema_without_features_is_refused() -> None:
    with pytest.raises(ConfigError, match="no features"):
        Ranker(Schema(features=(), tasks=TASKS), small_config())


def test_a_hashed_feature_that_does_not_exist_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'nobody'.*user, tab, item"):
        Ranker(SCHEMA, small_config(gate={"name": "hash", "feature": "nobody"}))


def test_features_may_share_a_table_and_differ_in_pooling() -> None:
    features = (
        IdSpec(name="a", kind="id_list", side="item", rows=9, table="shared", pooling="sum"),
        IdSpec(name="b", kind="id_list", side="item", rows=9, table="shared", pooling="mean"),
    )
    schema = Schema(features=features, tasks=(TaskSpec(name="like", kind="binary", base_rate=0.5),))
    ranker = Ranker(schema, small_config())
    given = inputs(schema, 3, 3)
    both = replace(
        given.candidate,
        list_values=np.tile(np.arange(6), 2),
        list_lengths=np.array([[1, 2, 3], [1, 2, 3]]),
    )
    columns = ranker.columns(TensorInputs.from_numpy(Inputs(given.request, both)))
    torch.testing.assert_close(columns[:, :8], columns[:, 8:] * torch.tensor([[1.0], [2.0], [3.0]]))


def test_a_single_expert_is_taken_whatever_the_default_gate_selects() -> None:
    config = ModelConfig.model_validate({"experts": 1})
    assert config.gate.name == "softmax"
    Ranker(small_schema(), config)


def test_a_table_may_have_columns_of_its_own_which_all_its_features_read() -> None:
    ranker = Ranker(SCHEMA, small_config(table_dims={"item": 4, "tab": 12}))
    widths = {name: table.shape[1] for name, table in ranker.table_weights().items()}
    assert widths == {"user": 8, "item": 4, "tab": 12, "genres": 8, "tags": 8}
    # user, the history of items, tab; item, genres and tags.
    dense = 1 + 1 + 4 + 1
    assert ranker.width == (8 + 4 + 12) + (4 + 8 + 8) + dense
    assert answers(ranker.eval(), inputs(SCHEMA, 6, 6)).shape == (6, 2)


@pytest.mark.parametrize("given", [{"embedding_dim": 6}, {"table_dims": {"item": 2}}])
def test_columns_that_the_kernels_cannot_read_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"(multiple of|greater than or equal to) 4"):
        ModelConfig.model_validate(given)


def test_columns_of_a_table_that_there_is_not_are_refused() -> None:
    with pytest.raises(ConfigError, match="table_dims names history, which are not embedding tables; there are: user"):
        Ranker(SCHEMA, small_config(table_dims={"history": 4}))
