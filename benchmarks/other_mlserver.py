"""An ONNX graph under MLServer, run by an interpreter that has mlserver and onnxruntime."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):  # type: ignore[misc] # MLServer is not installed beside us
    """What MLServer's documentation calls a custom runtime."""

    async def load(self) -> bool:
        """Load the graph that the settings name."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer every task's predictions."""
        feed = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        names = [node.name for node in self._session.get_outputs() if len(node.shape) == 1]
        answers = self._session.run(names, feed)
        outputs = [NumpyCodec.encode_output(name, value) for name, value in zip(names, answers, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
