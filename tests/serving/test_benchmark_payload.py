"""The benchmark compares like with like: its three forms of a request get the same answer."""

from pathlib import Path

import numpy as np

from benchmarks.serving_graph import ITEMS, publish_dense
from benchmarks.serving_payload import current, payload
from serving.api import codec_rank
from serving.api.codec_oip import arrays_from
from serving.stubs.inference import grpc_service_pb2 as pb
from serving.stubs.moerank.v1 import ranking_pb2


def test_ids_tensors_and_arrays_are_the_same_request(tmp_path: Path) -> None:
    publish_dense(tmp_path / "store", tmp_path / "work")
    model = current(tmp_path / "store")
    request = payload(model, None, ITEMS, 50, {})
    ranked = model.rank(codec_rank.request_from(ranking_pb2.RankRequest.FromString(request.rank)))
    tensors = arrays_from(pb.ModelInferRequest.FromString(request.infer))
    assert not len(ranked.unknown_items)
    assert model.check.require_valid(tensors) == 50
    for arrays in (tensors, request.feed):
        for task, values in model.engine.run(arrays, 50).items():
            np.testing.assert_array_equal(values, ranked.predictions[task])
            assert np.unique(values).size > 1
