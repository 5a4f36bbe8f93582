"""Experts that hardly any validation row selects are left out, if the answers to those rows allow it.

Shape legend: N rows, T tasks.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from features.batches import BatchReader
from models.export.prune import expert_use, prune
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from pipeline.export.post_export import LabelledAnswers, compared, refuse_losses

_ROWS = 4096


def prune_on(ranker: Ranker, valid: Path, share: float | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Prune a ranker in place; None: not asked for.

    Returns:
        Which experts went and what they held, and by task the metric before and after; nothing if nothing went.

    Raises:
        ExportError: a task loses more than is allowed.
    """
    if share is None or not ranker.network.levels:
        return {}
    use = expert_use(ranker, (batch.inputs for batch in BatchReader(valid, ranker.schema, _ROWS).epoch()))
    whole = _answers(ranker, valid)
    pruned = prune(ranker, use, share)
    say(str(pruned))
    if not any(pruned.dropped):
        return {}
    figures = compared(ranker.schema, whole, _answers(ranker, valid))
    refuse_losses("pruned experts", figures)
    return {**asdict(pruned), "said": str(pruned), "figures": figures}


@torch.no_grad()
def _answers(ranker: Ranker, valid: Path) -> LabelledAnswers:
    ranker.eval()
    rows = []
    for batch in BatchReader(valid, ranker.schema, _ROWS).epoch():
        scores_NT = ranker.predictions(ranker(TensorInputs.from_numpy(batch.inputs)).logits_BT)
        rows.append((scores_NT.numpy(), batch.labels, batch.weights))
    return LabelledAnswers(rows)
