"""A cheap head: two layers over the network's inputs, fitted to the model's own answers, that ranks many candidates.

It scores all candidates of a request so that the experts need to see the best alone, as rankers of several stages do
(P. Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016); the exits of JEI-DNN are the
same choice made row by row. Its first layer is split by part, so that the request's share is computed once.

Shape legend: R requests, N candidate rows, B rows, D columns, H hidden units, T tasks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contract.inputs import Inputs
from models.export_graph.affine import Affine
from models.export_graph.lookup import PartLookup, TableHolder, Tensors, stacked_tables
from models.export_graph.split import InputParts, SplitInput, SplitLinear
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs

HIDDEN, EPOCHS, BATCH = 16, 20, 512
RATE = 5e-3
_LEAST = 1e-6
"""Probabilities are kept this far from 0 and 1, so that their logits are finite."""


class CheapHead(TableHolder):
    """Answers by task [N] from the graph's inputs by name, as `ServingGraph` does."""

    def __init__(self, ranker: Ranker, first: Affine, last: Affine) -> None:
        """Stand on a ranker's tables, with layers fitted to its inputs."""
        super().__init__()
        dims, stacked = ranker.config.dims, stacked_tables(ranker)
        self.hold_tables(stacked.by_dim)
        self.parts = nn.ModuleList(PartLookup(layout, stacked.offsets, dims) for layout in ranker.layouts)
        self.first = SplitLinear(first, InputParts(ranker.layouts[0].width(dims)))
        self.register_buffer("weight_TH", last.weight_HD.float())
        self.register_buffer("bias_T", last.bias_H.float())
        self.tasks = ranker.schema.tasks
        self.outputs = [task.name for task in self.tasks]
        self.one_request = False

    def forward(self, inputs: Tensors) -> tuple[Tensor, ...]:
        """One answer [N] a task, in the schema's order."""
        request, candidate = (part(self.tables(), inputs) for part in self.parts)
        hidden_NH = self.first(SplitInput(request, candidate)).relu()
        answers_NT = torch.addmm(self.get_buffer("bias_T"), hidden_NH, self.get_buffer("weight_TH").t())
        return tuple(
            answers_NT[:, place].sigmoid() if task.kind == "binary" else answers_NT[:, place]
            for place, task in enumerate(self.tasks)
        )


def fit_cheap_head(ranker: Ranker, samples: Sequence[Inputs], seed: int = 0) -> CheapHead:
    """Fit the head to a ranker's answers on rows of training data, in some seconds; the ranker does not change."""
    ranker = ranker.cpu().float().eval()
    with torch.no_grad():
        tensors = [TensorInputs.from_numpy(inputs) for inputs in samples]
        paired = [TensorInputs(t.request.repeat(t.candidate.rows), t.candidate) for t in tensors]
        # Without attended histories, which cost what a cheap head is to spare.
        matrix_BD = torch.cat([ranker.columns(each)[:, : ranker.width] for each in paired])
        answers_BT = torch.cat([ranker.predictions(ranker(t).logits_BT) for t in tensors])
    is_binary = torch.tensor([task.kind == "binary" for task in ranker.schema.tasks])
    target_BT = torch.where(is_binary, answers_BT.clamp(_LEAST, 1 - _LEAST).logit(), answers_BT)
    mean_D, scale_D = matrix_BD.mean(dim=0), matrix_BD.std(dim=0).clamp(min=1e-3)
    centre_T, spread_T = target_BT.mean(dim=0), target_BT.std(dim=0).clamp(min=1e-6)
    layers = _fit((matrix_BD - mean_D) / scale_D, (target_BT - centre_T) / spread_T, seed)
    first, last = (Affine.of(layer.weight, layer.bias) for layer in layers)
    weight_HD = first.weight_HD / scale_D.double()
    whole = Affine(weight_HD, first.bias_H - weight_HD @ mean_D.double())
    unscaled = Affine(
        last.weight_HD * spread_T.double().unsqueeze(1), last.bias_H * spread_T.double() + centre_T.double()
    )
    return CheapHead(ranker, whole, unscaled)


def _fit(matrix_BD: Tensor, target_BT: Tensor, seed: int) -> tuple[nn.Linear, nn.Linear]:
    """Two layers by least squares, with Adam and a rate that falls to nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, last = nn.Linear(matrix_BD.shape[1], HIDDEN), nn.Linear(HIDDEN, target_BT.shape[1])
        parameters = [*first.parameters(), *last.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=RATE, weight_decay=1e-5)
        steps = EPOCHS * -(-len(matrix_BD) // BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(matrix_BD)).split(BATCH):
                loss = nn.functional.mse_loss(last(first(matrix_BD[rows]).relu()), target_BT[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return first, last
