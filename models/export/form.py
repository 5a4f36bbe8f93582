"""Which form of the mixture is exported, and why.

The sparse form computes union / n of the expert work plus a fixed routing cost; measured on CPU it wins below
`CROSSOVER` at 64 rows and more and below `CROSSOVER_FEW_ROWS` under that.

Shape legend: B rows, E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from contract.errors import ExportError
from contract.inputs import Inputs
from models.diagnostics.expert_health import union
from models.export_graph.exported_network import Form
from models.gates import Gate
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs

RequestedForm = Literal["sparse", "dense", "auto"]
CROSSOVER = 0.8
CROSSOVER_FEW_ROWS = 0.6
MANY_ROWS = 64
# How far above its promise a gate's mean selection may lie before it counts as not converged: some rows lie on the edge
# of a smooth-step whatever the training, and cost one expert more.
TOLERANCE = 1.25


@dataclass(frozen=True)
class Usage:
    """How many experts the sample rows used.

    `union_over_n` is the share of all experts that any gate selects, `selected` how many one gate does that is meant to
    leave some out; both are means over the rows. `promised` is how many such a gate selects once it has converged.
    """

    union_over_n: float
    rows: int
    selected: float
    promised: float

    @property
    def converged(self) -> bool:
        """Whether the gates are as sparse as they promise."""
        return self.selected <= TOLERANCE * self.promised


@dataclass(frozen=True)
class FormChoice:
    """The form, the reason in words, and a warning (empty: none)."""

    form: Form
    reason: str
    warning: str = ""


@torch.no_grad()
def measure_usage(ranker: Ranker, sample: Inputs) -> Usage:
    """Run the sample's rows through the gates."""
    inputs = TensorInputs.from_numpy(sample)
    routings = ranker.eval()(inputs).routings
    sparse = [(g, r) for g, r in zip(ranker.network.typed_gates, routings, strict=True) if g.selectors < g.experts]
    selected = [float(routing.selected_BE.sum(dim=1).double().mean()) for _, routing in sparse]
    return Usage(
        union_over_n=float(union(ranker.network.plan, routings, inputs.rows).double().mean()) if routings else 1.0,
        rows=inputs.rows,
        selected=sum(selected) / max(len(sparse), 1),
        promised=sum(gate.selectors for gate, _ in sparse) / max(len(sparse), 1),
    )


def choose_form(
    gates: Sequence[Gate], usage: Usage, requested: RequestedForm, *, typical_rows: int, require_sparse: bool
) -> FormChoice:
    """Decide the form; static gates always become constants.

    Raises:
        ExportError: `require_sparse`, and the gates have not converged or the dense form would be cheaper.
    """
    if not gates:
        return FormChoice("dense", "this architecture has no gates")
    crossover = CROSSOVER if typical_rows >= MANY_ROWS else CROSSOVER_FEW_ROWS
    figures = f"union/n {usage.union_over_n:.3f} over {usage.rows} rows, crossover {crossover} at {typical_rows} rows"
    warning = ""
    if not usage.converged:
        warning = (
            f"the gates select {usage.selected:.2f} experts per row and have not converged to the {usage.promised:g} "
            "that they are meant to select; for a sparse graph train longer, raise train.gate_learning_rate or "
            "regularise the gate's entropy"
        )
        if require_sparse:
            raise ExportError(warning)
    if all(gate.static for gate in gates):
        return FormChoice("static", f"static gates: constant weights, unused experts deleted ({figures})", warning)
    if requested != "auto":
        return FormChoice(requested, f"asked for ({figures})", warning)
    if warning:
        return FormChoice("dense", f"the gate has not converged ({figures})", warning)
    if usage.union_over_n >= crossover:
        return FormChoice("dense", f"cheaper: {figures}")
    return FormChoice("sparse", f"cheaper: {figures}")
