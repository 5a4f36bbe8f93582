"""Gates that look at ids: which experts an id reaches follows from how often it occurs in the training rows.

Sources: Roller et al. 2021, "Hash Layers For Large Sparse Models", section 3.1, "balanced assignment"; Su et al. 2024,
"MaskMoE", section 3.2.

Shape legend: R ids of a gate's table.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from contract.dataset import EncodedDataset
from models.gates import HashConfig, MaskMoEConfig
from models.gates.hash import HashGate
from models.gates.mask_moe import MaskMoEGate
from models.ranker import Ranker


def deal_ids(ranker: Ranker, rows: Path) -> None:
    """Give each expert of balanced hash gates equally many training rows, and rare ids of `mask_moe` few experts.

    Every rank counts all rows, so all deal alike; a checkpoint that is loaded afterwards brings its own dealing.
    """
    config = ranker.config.gate
    if not isinstance(config, HashConfig | MaskMoEConfig):
        return
    if isinstance(config, HashConfig) and config.assignment != "balanced":
        return
    counts_R = count_ids(rows, config.feature, config.rows)
    for gate in ranker.network.typed_gates:
        if isinstance(gate, HashGate | MaskMoEGate):
            gate.fit(counts_R)


def count_ids(rows: Path, feature: str, ids: int) -> Tensor:
    """How often each of the ids 0..`ids`-1 of a feature occurs, int64 [R]; ids beyond are hashed, and not counted."""
    counts_R = np.zeros(ids, dtype=np.int64)
    dataset = EncodedDataset.open(rows)
    for group in dataset.row_groups:
        column = dataset.read_groups([group], [feature])[feature].to_numpy()
        counts_R += np.bincount(column[column < ids], minlength=ids)
    return torch.from_numpy(counts_R)
