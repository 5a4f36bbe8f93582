"""What tests on a card are skipped by where there is none."""

from pathlib import Path

import onnxruntime
import pytest

from serving.graph.engine import CUDA

# onnxruntime-gpu offers CUDA on machines without a card, too.
HAS_CARD = Path("/dev/nvidiactl").exists() and CUDA in onnxruntime.get_available_providers()
needs_card = pytest.mark.skipif(not HAS_CARD, reason="no card, or this onnxruntime is built without CUDA")
