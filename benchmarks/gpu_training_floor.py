"""The floor of a training step: fbgemm's tables, stacked experts and towers, fused AdamW, ids ready on the device.

What no part of the product is in: no Parquet, no copies, no checks, no gates that could be chosen, one batch again and
again. Sizes are those of `gpu_training`. Shape legend: B rows, F id features, K embedding dim, E experts, T tasks.
"""

from collections.abc import Callable

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen
from torch import Tensor, nn

from benchmarks.gpu_training_data import TrainingSizes

Step = Callable[[], object]


class Floor(nn.Module):
    """Softmax gates of all tasks over stacked experts, and stacked towers."""

    def __init__(self, sizes: TrainingSizes) -> None:
        """Small random weights."""
        super().__init__()
        inputs = sizes.features * sizes.dim + sizes.dense
        hidden, outputs = sizes.widths

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape) * 0.05)

        self.first, self.second = weight(inputs, sizes.experts * hidden), weight(sizes.experts, hidden, outputs)
        self.gate, self.tower = weight(inputs, sizes.tasks * sizes.experts), weight(sizes.tasks, outputs, 32)
        self.head = weight(sizes.tasks, 32, 1)
        self.sizes = sizes

    def forward(self, x_BD: Tensor) -> Tensor:
        """Logits [T, B]."""
        experts, tasks = self.sizes.experts, self.sizes.tasks
        hidden_EBH = torch.relu(x_BD @ self.first).unflatten(1, (experts, -1)).transpose(0, 1)
        answers_EBO = torch.relu(hidden_EBH @ self.second)
        weights_BTE = (x_BD @ self.gate).unflatten(1, (tasks, experts)).softmax(-1)
        mixtures_BTO = weights_BTE.to(answers_EBO.dtype) @ answers_EBO.transpose(0, 1)
        towers_TBH = torch.relu(mixtures_BTO.transpose(0, 1) @ self.tower)
        return (towers_TBH @ self.head).squeeze(2)


def floor_steps(sizes: TrainingSizes, batch: int, device: torch.device) -> dict[str, Step]:
    """One step each way: eager, as a CUDA graph, compiled."""
    model, forward = _parts(sizes, batch, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True, capturable=device.type == "cuda")

    def stepper(network: Callable[[Tensor], Tensor]) -> Step:
        def step() -> None:
            forward(network).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)

        return step

    eager = stepper(model)
    # A processor's compiler takes minutes, and what a dry run is for are the lines.
    compiled = torch.compile(model, backend="inductor" if device.type == "cuda" else "eager")
    return {"eager": eager, "compile": stepper(compiled), "CUDA graph": _captured(eager, device)}


def _parts(
    sizes: TrainingSizes, batch: int, device: torch.device
) -> tuple[Floor, Callable[[Callable[[Tensor], Tensor]], Tensor]]:
    on_card = device.type == "cuda"
    tables = SplitTableBatchedEmbeddingBagsCodegen(
        [
            (
                sizes.rows,
                sizes.dim,
                EmbeddingLocation.DEVICE if on_card else EmbeddingLocation.HOST,
                ComputeDevice.CUDA if on_card else ComputeDevice.CPU,
            )
        ]
        * sizes.features,
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=0.02,
        device=device,
    )
    model = Floor(sizes).to(device)
    ids = torch.randint(0, sizes.rows, (sizes.features * batch,), device=device)
    offsets = torch.arange(sizes.features * batch + 1, device=device)
    dense_BD = torch.randn(batch, sizes.dense, device=device)
    labels_TB = (torch.rand(sizes.tasks, batch, device=device) < 0.2).float()  # noqa: PLR2004 one row in five

    def forward(network: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits_TB = network(torch.cat([tables(ids, offsets), dense_BD], dim=1))
        return nn.functional.binary_cross_entropy_with_logits(logits_TB.float(), labels_TB)

    return model, forward


def _captured(step: Step, device: torch.device) -> Step:
    """The step as one launch; on a processor the step itself."""
    if device.type != "cuda":
        return step
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
