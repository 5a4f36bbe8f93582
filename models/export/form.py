"""Which form of the mixture is exported, and why.

The sparse form computes union / n of the expert work plus a fixed routing cost; measured on CPU it wins below
`CROSSOVER` at 64 rows and more and below `CROSSOVER_FEW_ROWS` under that.

Shape legend: B rows, E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from features.errors import ExportError
from features.inputs import Inputs
from models.export.graph import Form
from models.gates import Gate
from models.health import union
from models.ranker import Ranker
from models.tensors import TensorInputs

RequestedForm = Literal["sparse", "dense", "auto"]
CROSSOVER = 0.8
CROSSOVER_FEW_ROWS = 0.6
MANY_ROWS = 64
# Rows that may select more experts than the gate promises before it counts as not converged: a few rows lie on the
# edge of a smooth-step whatever the training.
TOLERATED_SHARE = 0.01


@dataclass(frozen=True)
class Usage:
    """How many experts the sample rows used: union over gates / all experts, and how far gates keep their promise."""

    union_over_n: float
    rows: int
    over_promise: float
    """Share of (row, gate) pairs that select more experts than the gate's `selectors`."""

    @property
    def converged(self) -> bool:
        """Whether the gates are as sparse as they promise."""
        return self.over_promise <= TOLERATED_SHARE


@dataclass(frozen=True)
class Choice:
    """The form, the reason in words, and a warning (empty: none)."""

    form: Form
    reason: str
    warning: str = ""


@torch.no_grad()
def measure_usage(ranker: Ranker, sample: Inputs) -> Usage:
    """Run the sample's rows through the gates."""
    inputs = TensorInputs.from_numpy(sample)
    routings = ranker.eval()(inputs).routings
    gates = ranker.network.typed_gates
    rows = inputs.rows
    over = [r.selected_BE.sum(dim=1) > g.selectors for r, g in zip(routings, gates, strict=True)]
    return Usage(
        union_over_n=float(union(routings, rows).double().mean()),
        rows=rows,
        over_promise=float(torch.stack(over).double().mean()),
    )


def choose_form(
    gates: Sequence[Gate], usage: Usage, requested: RequestedForm, *, typical_rows: int, require_sparse: bool
) -> Choice:
    """Decide the form; static gates always become constants.

    Raises:
        ExportError: `require_sparse`, and the gates have not converged or the dense form would be cheaper.
    """
    crossover = CROSSOVER if typical_rows >= MANY_ROWS else CROSSOVER_FEW_ROWS
    figures = f"union/n {usage.union_over_n:.3f} over {usage.rows} rows, crossover {crossover} at {typical_rows} rows"
    warning = ""
    if not usage.converged:
        promised = max(gate.selectors for gate in gates)
        warning = (
            f"{usage.over_promise:.1%} of the routed rows select more than the {promised} experts that the gate is "
            "meant to converge to; train longer or regularise the gate's entropy for a sparse graph"
        )
        if require_sparse:
            raise ExportError(warning)
    if all(gate.static for gate in gates):
        return Choice("static", f"static gates: constant weights, unused experts deleted ({figures})", warning)
    if requested != "auto":
        return Choice(requested, f"asked for ({figures})", warning)
    if warning:
        return Choice("dense", f"the gate has not converged ({figures})", warning)
    if usage.union_over_n >= crossover:
        return Choice("dense", f"cheaper: {figures}")
    return Choice("sparse", f"cheaper: {figures}")
