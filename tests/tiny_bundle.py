"""A tiny real bundle: a schema, vocabularies, online tables and a hand-made graph, for tests of the serving parts.

Users 1 to 8, items 100 to 119, tabs "home" and "search"; tasks `like` (binary) and `rating` (regression).
The graph does not look at the list features. It tells of two gates over two experts, which change nothing: one takes
the first expert for positive prices and the second for negative ones, the other is static and takes the second.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
from onnx import TensorProto, helper, numpy_helper

from contract.graph_names import PACKED_FILE, RAW_GOLDEN_FILE, REQUEST_OF
from contract.hashing import hash_array
from contract.inputs import Inputs, PartInputs
from contract.schema import DenseSpec, IdSpec, KeySpec, Schema, TaskSpec
from features.encode.vocabulary import Vocabularies
from features.online.online_table import OnlineTable, OnlineTables
from features.online.raw_requests import request_to_json
from features.online.request_encoder import RankRequest, RequestEncoder
from serving.graph.engine import Engine
from serving.store.bundle import publish
from serving.store.golden import GoldenCase, write

USERS = list(range(1, 9))
ITEMS = list(range(100, 120))
TABS = ["home", "search"]
VALUES = {"user_id": pa.array(USERS), "item_id": pa.array(ITEMS), "tab": pa.array(TABS)}


def vocabularies() -> Vocabularies:
    return Vocabularies(VALUES)


def make_schema(task: str = "like") -> Schema:
    return Schema(
        features=(
            IdSpec(name="user_id", kind="id", side="user", rows=len(USERS) + 1),
            IdSpec(name="tab", kind="id", side="context", dtype="string", rows=len(TABS) + 1),
            DenseSpec(name="activity", side="user", encoding="standardise", lowest=0.0, highest=8.0),
            IdSpec(name="item_id", kind="id", side="item", rows=len(ITEMS) + 1),
            IdSpec(name="recent", kind="id_list", side="user", rows=len(ITEMS) + 1, max_length=5, table="item_id"),
            IdSpec(name="words", kind="id_list", side="item", dtype="string", rows=9, max_length=3, encoding="hash"),
            DenseSpec(name="price", side="item", encoding="standardise"),
        ),
        tasks=(TaskSpec(name=task, kind="binary"), TaskSpec(name="rating", kind="regression", unit="stars")),
        keys=(KeySpec(name="user_id", side="user"), KeySpec(name="item_id", side="item")),
        user_key="user_id",
        item_key="item_id",
        vocabulary_sha256=vocabularies().sha256(),
    )


def online_tables() -> OnlineTables:
    words = vocabularies()

    def table(name: str, keys: list[int], dense_name: str, dense: list[float]) -> OnlineTable:
        hashes = hash_array(pa.array(keys))
        order = np.argsort(hashes)
        ids = np.append(words.rows(name, hashes)[order], 0).astype(np.int32)[:, None]
        values = np.append(np.array(dense, np.float32)[order], 0).astype(np.float32)[:, None]
        own = np.append(hashes[order], np.uint64(0)).astype(np.uint64)[:, None]
        return OnlineTable(hashes[order], ids, values, own, {}, (name,), (dense_name,), (name,))

    return OnlineTables(
        user=table("user_id", USERS, "activity", [u / 8 for u in USERS]),
        item=table("item_id", ITEMS, "price", [(i - 110) / 10 for i in ITEMS]),
        pairs={},
    )


def write_graph(
    path: Path, schema: Schema, *, seed: int = 0, poison: bool = False, layers: int = 0, packed: bool = False
) -> None:
    """logit = <user, item> + tab + activity + price.

    `poison` makes the answers for the item in row 1 a NaN; `layers` of 512 units cost time and change nothing; `packed`
    takes several requests, and for each candidate the number of its own.
    """
    rng = np.random.default_rng(seed)
    user, item = rng.normal(size=(len(USERS) + 1, 4)), rng.normal(size=(len(ITEMS) + 1, 4))
    tab = rng.normal(size=(len(TABS) + 1,))
    if poison:
        item[1] = np.nan
    constants = {"user": user, "item": item, "tab": tab, "half": np.array([0.5]), "signs": np.array([[1.0, -1.0]])}
    if layers:
        constants |= {"wide": rng.normal(size=(1, 512)), "deep": rng.normal(size=(512, 512)) / 512}
        constants["tiny"] = np.array([1e-30])
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    places = [numpy_helper.from_array(np.array(i, np.int64), f"at{i}") for i in (0, 1)]
    places.append(numpy_helper.from_array(np.array([1], np.int64), "axes"))
    nodes = [
        helper.make_node("Gather", ["request_ids", "at0"], ["u"], axis=1),
        helper.make_node("Gather", ["request_ids", "at1"], ["t"], axis=1),
        helper.make_node("Gather", ["candidate_ids", "at0"], ["i"], axis=1),
        helper.make_node("Gather", ["request_dense", "at0"], ["activity"], axis=1),
        helper.make_node("Gather", ["candidate_dense", "at0"], ["price"], axis=1),
        helper.make_node("Gather", ["user", "u"], ["users"]),
        helper.make_node("Gather", ["item", "i"], ["item_row"]),
        helper.make_node("Gather", ["tab", "t"], ["tab_row"]),
        _of_candidates("users", "user_row", packed=packed),
        helper.make_node("Mul", ["user_row", "item_row"], ["products"]),
        helper.make_node("ReduceSum", ["products", "axes"], ["dot"], keepdims=0),
        helper.make_node("Add", ["activity", "tab_row"], ["of_requests"]),
        _of_candidates("of_requests", "of_request", packed=packed),
        helper.make_node("Add", ["of_request", "price"], ["linear"]),
        helper.make_node("Add", ["dot", "linear"], ["light"]),
        *_layers(layers, "light", "logit"),
        helper.make_node("Sigmoid", ["logit"], [schema.tasks[0].name]),
        helper.make_node("Mul", ["logit", "half"], [schema.tasks[1].name]),
        helper.make_node("MatMul", ["candidate_dense", "signs"], ["signed"]),
        helper.make_node("Relu", ["signed"], ["expert_weights_0"]),
    ]
    inputs = [
        helper.make_tensor_value_info("request_ids", TensorProto.INT64, ["R", 2]),
        helper.make_tensor_value_info("request_dense", TensorProto.FLOAT, ["R", 1]),
        helper.make_tensor_value_info("candidate_ids", TensorProto.INT64, ["N", 1]),
        helper.make_tensor_value_info("candidate_dense", TensorProto.FLOAT, ["N", 1]),
    ]
    if packed:
        inputs.append(helper.make_tensor_value_info(REQUEST_OF, TensorProto.INT64, ["N"]))
    outputs = [helper.make_tensor_value_info(task.name, TensorProto.FLOAT, ["N"]) for task in schema.tasks]
    outputs.append(helper.make_tensor_value_info("expert_weights_0", TensorProto.FLOAT, ["N", 2]))
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [*weights, *places])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    gates = [{"level": 0, "experts": 2, "tasks": [task.name]} for task in schema.tasks]
    gates[1]["weights"] = [0.0, 1.0]
    helper.set_model_props(model, {"schema_fingerprint": schema.fingerprint(), "gates": json.dumps(gates)})
    onnx.save(model, str(path))


def _of_candidates(of_requests: str, of_candidates: str, *, packed: bool) -> onnx.NodeProto:
    """Without packing, the one request's row is broadcast."""
    if packed:
        return helper.make_node("Gather", [of_requests, REQUEST_OF], [of_candidates])
    return helper.make_node("Identity", [of_requests], [of_candidates])


def _layers(count: int, light: str, logit: str) -> list[onnx.NodeProto]:
    if count == 0:
        return [helper.make_node("Identity", [light], [logit])]
    return [
        helper.make_node("MatMul", ["candidate_dense", "wide"], ["layer0"]),
        *[helper.make_node("MatMul", [f"layer{i}", "deep"], [f"layer{i + 1}"]) for i in range(count)],
        helper.make_node("ReduceSum", [f"layer{count}", "axes"], ["heavy"], keepdims=0),
        helper.make_node("Mul", ["heavy", "tiny"], ["nothing"]),
        helper.make_node("Add", [light, "nothing"], [logit]),
    ]


def make_inputs(user: int, items: list[int]) -> Inputs:
    """Encoded inputs by hand: rows of the tables, not raw ids."""

    def part(ids: list[list[int]], dense: list[list[float]]) -> PartInputs:
        rows = len(ids)
        lengths = np.zeros((0, rows), np.int64)
        return PartInputs(np.array(ids, np.int64), np.zeros(0, np.int64), lengths, np.array(dense, np.float32))

    return Inputs(part([[user, 1]], [[0.5]]), part([[item] for item in items], [[0.1 * item] for item in items]))


def make_files(
    folder: Path, *, seed: int = 0, task: str = "like", layers: int = 0, packed: bool = False
) -> dict[str, Path]:
    """Everything that a bundle holds, in a new folder."""
    folder.mkdir(parents=True)
    schema = make_schema(task)
    schema.save(folder)
    write_graph(folder / "model.onnx", schema, seed=seed, layers=layers)
    if packed:
        write_graph(folder / PACKED_FILE, schema, seed=seed, layers=layers, packed=True)
    vocabularies().save(folder)
    online_tables().save(folder / "online")
    inputs = make_inputs(1, [1, 2, 3])
    engine = Engine(folder, schema)
    raw = RankRequest(3, [100, 101, 7777], {"tab": "home"}, {"activity": 0.5})
    encoded = RequestEncoder.open(folder).encode(raw).inputs
    cases = {"first": inputs, "raw": encoded}
    write(folder / "golden.npz", {name: GoldenCase(each, engine.predict(each)) for name, each in cases.items()})
    (folder / RAW_GOLDEN_FILE).write_text(json.dumps({"raw": request_to_json(raw)}), encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text("# tiny\n", encoding="utf-8")
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def publish_tiny(
    store: Path,
    work: Path,
    model: str = "tiny",
    *,
    seed: int = 0,
    task: str = "like",
    layers: int = 0,
    packed: bool = False,
) -> Path:
    """Publish a version made from a seed; `work` must not exist yet."""
    facts = {"schema_fingerprint": make_schema(task).fingerprint(), "tasks": [task, "rating"], "git_revision": "abc"}
    return publish(store, model, make_files(work, seed=seed, task=task, layers=layers, packed=packed), facts)
