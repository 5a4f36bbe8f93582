"""An ONNX graph under Triton's Python backend: ``PYTHON other_pytriton.py GRAPH PORT``, with nvidia-pytriton."""

import sys
from typing import Any

import numpy as np
import onnxruntime
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

KINDS = {"tensor(int64)": np.int64, "tensor(float)": np.float32}


def main() -> None:
    """Serve until ended."""
    graph, port = sys.argv[1], int(sys.argv[2])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options)
    inputs, outputs = session.get_inputs(), [node.name for node in session.get_outputs() if len(node.shape) == 1]

    def infer(requests: list[Any]) -> list[dict[str, np.ndarray]]:
        return [dict(zip(outputs, session.run(outputs, dict(each.data)), strict=True)) for each in requests]

    config = TritonConfig(http_port=port + 1, grpc_port=port, metrics_port=port + 2, http_address="127.0.0.1")
    with Triton(config=config) as triton:
        triton.bind(
            model_name="dense",
            infer_func=infer,
            inputs=[Tensor(name=n.name, dtype=KINDS[n.type], shape=(-1, n.shape[1])) for n in inputs],
            outputs=[Tensor(name=name, dtype=np.float32, shape=(-1,)) for name in outputs],
            config=ModelConfig(batching=False),
        )
        triton.serve()


if __name__ == "__main__":
    main()
