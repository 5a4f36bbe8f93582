"""The graph that the serving benchmark's bounds speak of, as a bundle.

30 ids of dimension 16, 8 experts 480 -> 128 -> 64, a softmax gate per task, 4 towers; dense, and tiled: all features
are the candidates'. Shape legend: N candidates, F 30 features, D 16, E 8 experts, T 4 tasks.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from contract.hashing import hash_array
from contract.schema import IdSpec, KeySpec, Schema, TaskSpec
from features.encode.vocabulary import Vocabularies
from features.online.online_table import OnlineTable, OnlineTables
from serving.store.bundle import publish

FEATURES, ROWS, ITEMS = 30, 1001, 10_000
WIDTH, EXPERTS, HIDDEN, OUT, TASKS = 16, 8, 128, 64, 4
MODEL = "dense"


def make_schema() -> Schema:
    """30 id features of the item, 4 binary tasks."""
    return Schema(
        features=tuple(
            IdSpec(name=f"id{i}", kind="id", side="item", rows=ROWS, encoding="hash") for i in range(FEATURES)
        ),
        tasks=tuple(TaskSpec(name=f"task{i}", kind="binary", base_rate=0.5) for i in range(TASKS)),
        keys=(KeySpec(name="item", side="item"),),
        item_key="item",
        vocabulary_sha256=Vocabularies({}).sha256(),
    )


def publish_dense(store: Path, work: Path) -> Path:
    """Write the bundle; `work` must not exist yet."""
    rng = np.random.default_rng(0)
    schema = make_schema()
    return publish_graph(
        store, work, MODEL, schema, _tables(rng), lambda path: onnx.save(_model(rng, schema), str(path))
    )


def publish_graph(
    store: Path, work: Path, model: str, schema: Schema, tables: OnlineTables, write: Callable[[Path], object]
) -> Path:
    """Publish a graph, written by `write`, of hashed ids; `work` must not exist yet."""
    work.mkdir(parents=True)
    schema.save(work)
    Vocabularies({}).save(work)
    tables.save(work / "online")
    write(work / "model.onnx")
    files = {path.relative_to(work).as_posix(): path for path in work.rglob("*") if path.is_file()}
    facts = {"schema_fingerprint": schema.fingerprint(), "tasks": [task.name for task in schema.tasks]}
    return publish(store, model, files, facts)


def table_of_ids(rng: np.random.Generator, names: tuple[str, ...]) -> OnlineTable:
    """Of the entities 0 to `ITEMS` - 1, a random id a feature."""
    hashes = np.sort(hash_array(pa.array(np.arange(ITEMS))))
    ids = rng.integers(1, ROWS, (ITEMS + 1, len(names))).astype(np.int32)
    none = np.zeros((ITEMS + 1, 0))
    return OnlineTable(hashes, ids, none.astype(np.float32), none.astype(np.uint64), {}, names)


def _tables(rng: np.random.Generator) -> OnlineTables:
    return OnlineTables(user=None, item=table_of_ids(rng, tuple(f"id{i}" for i in range(FEATURES))), pairs={})


def _model(rng: np.random.Generator, schema: Schema) -> onnx.ModelProto:
    def weights(*shape: int) -> NDArray[np.float32]:
        return (rng.normal(size=shape) / np.sqrt(shape[-2])).astype(np.float32)

    flat = FEATURES * WIDTH
    constants: dict[str, NDArray[np.generic]] = {
        "table": weights(FEATURES * ROWS, WIDTH),
        "offsets": (np.arange(FEATURES) * ROWS)[None].astype(np.int64),
        "first": weights(EXPERTS, flat, HIDDEN),
        "second": weights(EXPERTS, HIDDEN, OUT),
        "gate": weights(flat, TASKS * EXPERTS),
        "tower": weights(1, TASKS, OUT),
        "flat": np.array([-1, flat], np.int64),
        "by_task": np.array([-1, TASKS, EXPERTS], np.int64),
        "last": np.array([2], np.int64),
    }
    nodes = [
        helper.make_node("Add", ["candidate_ids", "offsets"], ["rows"]),
        helper.make_node("Gather", ["table", "rows"], ["embedded_NFD"]),
        helper.make_node("Reshape", ["embedded_NFD", "flat"], ["x"]),
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "second"], ["experts_ENO"]),
        helper.make_node("Transpose", ["experts_ENO"], ["experts_NEO"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["x", "gate"], ["g"]),
        helper.make_node("Reshape", ["g", "by_task"], ["gate_NTE"]),
        helper.make_node("Softmax", ["gate_NTE"], ["weights_NTE"], axis=2),
        helper.make_node("MatMul", ["weights_NTE", "experts_NEO"], ["mixed_NTO"]),
        helper.make_node("Mul", ["mixed_NTO", "tower"], ["products"]),
        helper.make_node("ReduceSum", ["products", "last"], ["logits_NT"], keepdims=0),
        helper.make_node("Sigmoid", ["logits_NT"], ["p_NT"]),
    ]
    for place, task in enumerate(schema.tasks):
        constants[f"at{place}"] = np.array(place, np.int64)
        nodes.append(helper.make_node("Gather", ["p_NT", f"at{place}"], [task.name], axis=1))
    ids = helper.make_tensor_value_info("candidate_ids", TensorProto.INT64, ["N", FEATURES])
    outputs = [helper.make_tensor_value_info(task.name, TensorProto.FLOAT, ["N"]) for task in schema.tasks]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, MODEL, [ids], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"schema_fingerprint": schema.fingerprint()})
    return model
