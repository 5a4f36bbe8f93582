"""A tiny bundle with cheaper ways to answer: other small graphs in the place of a cheap head and of fewer experts."""

from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper

from contract.graph_names import CASCADE, CHEAP_FILE, FEWER_FILE, ITEM_PRIOR_FILE, MOST_EXPERTS
from contract.hashing import hash_integers
from serving.graph.stages import PRIOR_KEY
from serving.observe.expected_predictions import EXPORT, PREDICTIONS, validation_counts
from serving.store.bundle import publish
from tests.tiny_bundle import make_files, make_schema, write_graph

ITEMS = np.arange(100, 120)


def publish_staged(store: Path, work: Path, *, cascade: int = 0, layers: int = 0, least: int = 1) -> Path:
    """Publish a version with a cheap head (seed 1), fewer experts (seed 2) and item priors.

    With fewer experts, the ratings are multiplied by how many the graph is told to take, so that tests see the number.
    """
    schema = make_schema()
    files = make_files(work, layers=layers)
    write_graph(work / CHEAP_FILE, schema, seed=1)
    write_graph(work / FEWER_FILE, schema, seed=2)
    _take_number(work / FEWER_FILE, least)
    model = onnx.load(work / CHEAP_FILE)
    model.metadata_props.add(key=CASCADE, value=str(cascade))
    onnx.save(model, str(work / CHEAP_FILE))
    means = np.linspace(0.1, 0.9, len(ITEMS) + 1).astype(np.float32)
    prior = {PRIOR_KEY: np.append(np.uint64(0), hash_integers(ITEMS)), **{task.name: means for task in schema.tasks}}
    pq.write_table(pa.table(prior), work / ITEM_PRIOR_FILE)
    files |= {name: work / name for name in (CHEAP_FILE, FEWER_FILE, ITEM_PRIOR_FILE)}
    predictions = validation_counts(np.linspace([0.1, 1], [0.9, 5], 50, dtype=np.float32), schema)
    facts = {
        "schema_fingerprint": schema.fingerprint(),
        "tasks": [t.name for t in schema.tasks],
        "git_revision": "abc",
        "about": {EXPORT: {PREDICTIONS: predictions}},
    }
    return publish(store, "tiny", files, facts)


def _take_number(path: Path, least: int) -> None:
    model = onnx.load(path)
    (rating,) = (node for node in model.graph.node if node.output[0] == "rating")
    rating.input[1] = "wanted"
    model.graph.node.insert(0, helper.make_node("Cast", [MOST_EXPERTS], ["wanted"], to=TensorProto.FLOAT))
    model.graph.input.append(helper.make_tensor_value_info(MOST_EXPERTS, TensorProto.INT64, [1]))
    model.metadata_props.add(key=MOST_EXPERTS, value=str(least))
    onnx.save(model, str(path))
