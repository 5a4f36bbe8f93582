"""Trained rankers of a project, one for each gate, with real rows, for the sparse graph's benchmark."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contract.dataset import DATASET_MANIFEST
from contract.errors import MoerankError
from contract.inputs import Inputs, PartInputs
from contract.schema import Schema
from features.batches import BatchReader
from models.export.form import choose_form, measure_usage
from models.export_graph.exported_network import Form
from models.ranker import Ranker
from pipeline.training.checkpoint import load_ranker


class Trained(NamedTuple):
    """A trained ranker, a request of the first row's user with real candidates, and the form that its export takes."""

    gate: str
    ranker: Ranker
    inputs: Inputs
    form: Form
    union_over_n: float


def trained(project: Path, candidates: int) -> Iterator[Trained]:
    """The first loadable run of each gate below ``PROJECT/training``; nothing where there is none."""
    features = project / "features"
    if not (features / "valid" / DATASET_MANIFEST).is_file():
        return
    schema = Schema.load(features)
    rows = next(BatchReader(features / "valid", schema, candidates).epoch()).inputs
    seen: set[str] = set()
    for run in sorted((project / "training").glob("*/")):
        try:
            model = load_ranker(run, schema).cpu().float().eval()
        except MoerankError as error:
            print(f"{run.name} is left out: {str(error).splitlines()[0]}")
            continue
        gate = model.config.gate.name
        if gate not in seen:
            seen.add(gate)
            usage = measure_usage(model, rows)
            choice = choose_form(
                model.network.typed_gates, usage, "auto", typical_rows=candidates, require_sparse=False
            )
            inputs = replace(rows, request=_first_row(rows.request))
            yield Trained(gate, model, inputs, choice.form, usage.union_over_n)


def _first_row(part: PartInputs) -> PartInputs:
    starts = np.concatenate([[0], part.list_lengths.reshape(-1).cumsum()])[:-1].reshape(part.list_lengths.shape)
    pairs = zip(starts[:, :1].ravel(), part.list_lengths[:, :1].ravel(), strict=True)
    lists = [part.list_values[start : start + count] for start, count in pairs]
    return PartInputs(
        ids=part.ids[:1],
        list_values=np.concatenate(lists) if lists else part.list_values[:0],
        list_lengths=np.ascontiguousarray(part.list_lengths[:, :1]),
        dense=part.dense[:1],
    )
