"""Weight decay of embedding rows: those that were read lose rate x decay of themselves, once, and no others."""

from typing import Any

import pytest
import torch

from contract.errors import ConfigError
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from models.sharding import LearningRates, Sharded, process_group, shard
from models.table_decay import TableDecay
from models.table_planner import TableOptions
from tests.models.small import inputs, small_config, small_schema

CPU = torch.device("cpu")
RATE, DECAY = 0.1, 0.5
SCHEMA = small_schema()


def sharded(config: dict[str, Any] | None = None, **tables: TableOptions) -> Sharded:
    torch.manual_seed(0)
    rates = LearningRates(network=0.01, gates=0.01, embeddings=RATE, embedding_decay=DECAY, tables=tables)
    return shard(Ranker(SCHEMA, small_config(**(config or {})), torch.device("meta")), CPU, rates)


def tables_of(model: Sharded) -> dict[str, torch.Tensor]:
    return {name: table.detach().clone() for name, table in model.ranker.table_weights().items()}


def test_rows_that_were_read_decay_once_and_others_do_not() -> None:
    given = inputs(SCHEMA, 16, 16)
    request, candidate = given.request, given.candidate
    ends = candidate.list_lengths.sum(axis=1).cumsum()
    read = {
        "user": set(request.ids[:, 0].tolist()),
        "tab": set(request.ids[:, 1].tolist()),
        "item": {*candidate.ids[:, 0].tolist(), *request.list_values.tolist()},
        "genres": set(candidate.list_values[: ends[0]].tolist()),
        "tags": set(candidate.list_values[ends[0] :].tolist()),
    }
    with process_group(CPU):
        model = sharded(item=TableOptions(decay=0.0), user=TableOptions(optimizer="sgd", rate=0.2))
        decay, before = TableDecay(model.ranker.embeddings), tables_of(model)
        with decay.noted():
            model.model(TensorInputs.from_numpy(given))
        decay.apply()
        after = tables_of(model)
    for name, table in before.items():
        lost = {"item": 0.0, "user": 0.2 * DECAY}.get(name, RATE * DECAY)
        for row, (old, new) in enumerate(zip(table, after[name], strict=True)):
            torch.testing.assert_close(new, old * (1.0 - lost) if row in read[name] else old, msg=f"{name} {row}")


def test_a_step_that_moves_nothing_decays_nothing() -> None:
    with process_group(CPU):
        model = sharded()
        decay, before = TableDecay(model.ranker.embeddings), tables_of(model)
        with decay.noted():
            model.model(TensorInputs.from_numpy(inputs(SCHEMA, 16, 16)))
        decay.apply(torch.tensor(0.0))
        assert all(torch.equal(table, before[name]) for name, table in tables_of(model).items())


def test_tables_of_several_widths_that_decay_are_refused() -> None:
    with process_group(CPU), pytest.raises(ConfigError, match="several widths"):
        TableDecay(sharded({"table_dims": {"item": 4}}).ranker.embeddings)
