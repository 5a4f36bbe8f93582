"""Experts that hardly any validation row selects, or that answer alike, go, if the answers to those rows allow it.

Shape legend: N rows, T tasks.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from contract.inputs import Inputs
from features.batches import BatchReader
from models.export.merge import Merged, expert_distances, merge
from models.export.prune import Pruned, expert_use, prune
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
    use = expert_use(ranker, _inputs(ranker, valid))
    return _guarded(ranker, valid, lambda: prune(ranker, use, share), "pruned experts", say)


def merge_on(ranker: Ranker, valid: Path, distance: float | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Merge experts in place that answer within `distance` of each other; None: not asked for.

    Returns:
        Which expert answers for which, and by task the metric before and after; nothing if nothing went.

    Raises:
        ExportError: a task loses more than is allowed.
    """
    if distance is None or not ranker.network.levels:
        return {}
    apart = expert_distances(ranker, _inputs(ranker, valid))
    use = expert_use(ranker, _inputs(ranker, valid))
    return _guarded(ranker, valid, lambda: merge(ranker, apart, use, distance), "merged experts", say)


def _guarded(
    ranker: Ranker, valid: Path, change: Callable[[], Pruned | Merged], what: str, say: Callable[[str], None]
) -> dict[str, Any]:
    whole = _answers(ranker, valid)
    done = change()
    say(str(done))
    if not done.count:
        return {}
    figures = compared(ranker.schema, whole, _answers(ranker, valid))
    refuse_losses(what, figures)
    return {**asdict(done), "said": str(done), "figures": figures}


def _inputs(ranker: Ranker, valid: Path) -> Iterator[Inputs]:
    return (batch.inputs for batch in BatchReader(valid, ranker.schema, _ROWS).epoch())


@torch.no_grad()
def _answers(ranker: Ranker, valid: Path) -> LabelledAnswers:
    ranker.eval()
    rows = []
    for batch in BatchReader(valid, ranker.schema, _ROWS).epoch():
        scores_NT = ranker.predictions(ranker(TensorInputs.from_numpy(batch.inputs)).logits_BT)
        rows.append((scores_NT.numpy(), batch.labels, batch.weights))
    return LabelledAnswers(rows)
