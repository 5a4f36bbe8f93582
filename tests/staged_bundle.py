"""A tiny bundle with cheaper ways to answer: other small graphs in the place of a cheap head and of fewer experts."""

from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq

from contract.graph_names import CASCADE, CHEAP_FILE, FEWER_FILE, ITEM_PRIOR_FILE
from contract.hashing import hash_integers
from serving.graph.stages import PRIOR_KEY
from serving.store.bundle import publish
from tests.tiny_bundle import make_files, make_schema, write_graph

ITEMS = np.arange(100, 120)


def publish_staged(store: Path, work: Path, *, cascade: int = 0, layers: int = 0) -> Path:
    """Publish a version with a cheap head (seed 1), fewer experts (seed 2) and item priors."""
    schema = make_schema()
    files = make_files(work, layers=layers)
    write_graph(work / CHEAP_FILE, schema, seed=1)
    write_graph(work / FEWER_FILE, schema, seed=2)
    model = onnx.load(work / CHEAP_FILE)
    model.metadata_props.add(key=CASCADE, value=str(cascade))
    onnx.save(model, str(work / CHEAP_FILE))
    means = np.linspace(0.1, 0.9, len(ITEMS) + 1).astype(np.float32)
    prior = {PRIOR_KEY: np.append(np.uint64(0), hash_integers(ITEMS)), **{task.name: means for task in schema.tasks}}
    pq.write_table(pa.table(prior), work / ITEM_PRIOR_FILE)
    files |= {name: work / name for name in (CHEAP_FILE, FEWER_FILE, ITEM_PRIOR_FILE)}
    facts = {"schema_fingerprint": schema.fingerprint(), "tasks": [t.name for t in schema.tasks], "git_revision": "abc"}
    return publish(store, "tiny", files, facts)
