"""The bounds' graph as moerank would make it: half of the features are the user's, one gate sends a row to two experts.

Sizes are those of `serving_graph`. The dense tiled graph of the same weights is what other servers get.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.serving_graph import EXPERTS, FEATURES, HIDDEN, OUT, ROWS, TASKS, WIDTH, publish_graph, table_of_ids
from benchmarks.sparse_models import write_form, write_tiled
from contract.schema import IdSpec, KeySpec, Schema, TaskSpec
from features.encode.vocabulary import Vocabularies
from features.online.online_table import OnlineTables
from models.model_config import ModelConfig
from models.ranker import Ranker

MODEL = "sparse"
SIDES = ("user", "item")


def publish_sparse(store: Path, work: Path, tiled: Path) -> Path:
    """Write the bundle, and the dense tiled graph of the same weights to `tiled`; `work` must not exist yet."""
    schema = split_schema()
    settings: dict[str, Any] = {
        "embedding_dim": WIDTH,
        "embedding_init": 1.0,
        "experts": EXPERTS,
        "expert_widths": (HIDDEN, OUT),
        "tower_widths": (),
        "gate": {"name": "top_k", "k": 2},
        "gate_scope": "shared",
    }
    torch.manual_seed(0)
    model = Ranker(schema, ModelConfig.model_validate(settings)).eval()
    write_tiled(model, tiled)
    rng = np.random.default_rng(0)
    user, item = (table_of_ids(rng, tuple(f.name for f in schema.features if f.side == side)) for side in SIDES)
    tables = OnlineTables(user=user, item=item, pairs={})
    return publish_graph(store, work, MODEL, schema, tables, lambda path: _write(model, path))


def _write(model: Ranker, path: Path) -> None:
    write_form(model, path, "sparse")
    graph = onnx.load(str(path), load_external_data=False)
    onnx.helper.set_model_props(graph, {"schema_fingerprint": model.schema.fingerprint()})
    onnx.save(graph, str(path))


def split_schema() -> Schema:
    """Thirty hashed ids, half of them the user's, 4 binary tasks."""
    return Schema(
        features=tuple(
            IdSpec(name=f"id{i}", kind="id", side="user" if i < FEATURES // 2 else "item", rows=ROWS, encoding="hash")
            for i in range(FEATURES)
        ),
        tasks=tuple(TaskSpec(name=f"task{i}", kind="binary", base_rate=0.5) for i in range(TASKS)),
        keys=(KeySpec(name="user", side="user"), KeySpec(name="item", side="item")),
        user_key="user",
        item_key="item",
        vocabulary_sha256=Vocabularies({}).sha256(),
    )
