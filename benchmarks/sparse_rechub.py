"""The graph that torch-rechub exports for its MMoE of the same sizes, where that package is installed.

It is an optional dependency of this benchmark alone.
"""

import importlib.util
import logging
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.sparse_models import DIM, EXPERT_WIDTHS, FEATURES, ROWS_A_TABLE

PACKAGE = "torch_rechub"


def rechub_graph(folder: Path, rows: int) -> Callable[[], NDArray[np.float32]] | None:
    """One run over `rows` random rows; None where the package is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        return None
    features = import_module(f"{PACKAGE}.basic.features")
    model = (
        import_module(f"{PACKAGE}.models.multi_task")
        .MMOE(
            [features.SparseFeature(f"f{i}", vocab_size=ROWS_A_TABLE, embed_dim=DIM) for i in range(FEATURES)],
            ["classification"] * 4,
            n_expert=8,
            expert_params={"dims": list(EXPERT_WIDTHS)},
            tower_params_list=[{"dims": [64]}] * 4,
        )
        .eval()
    )
    path = folder / "rechub.onnx"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module(f"{PACKAGE}.utils.onnx_export").ONNXExporter(model).export(str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {node.name: rng.integers(0, ROWS_A_TABLE, rows) for node in session.get_inputs()}
    return lambda: np.asarray(session.run(None, feed)[0])
