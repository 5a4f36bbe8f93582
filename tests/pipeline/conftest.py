"""One tiny bundle with rows and its evaluation, shared by the tests of evaluation, comparison, gate and report."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.evaluation.evaluate import EvaluateConfig, evaluate
from pipeline.evaluation.result import Evaluation
from tests.tiny_bundle import publish_tiny
from tests.tiny_rows import write_all


@dataclass(frozen=True)
class Judged:
    """Paths of a bundle that made the labels, one that did not, their rows, and the first one's evaluation."""

    bundle: Path
    worse: Path
    train: Path
    test: Path
    out: Path
    evaluation: Evaluation


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    folder = tmp_path_factory.mktemp("judged")
    bundle = publish_tiny(folder / "store", folder / "a", seed=0)
    worse = publish_tiny(folder / "store", folder / "b", seed=1)
    train, test = write_all(folder, bundle)
    config = EvaluateConfig(replicates=200, slice_replicates=50, slice_by=("tab",))
    evaluation = evaluate(bundle, test, train, folder / "out", config=config)
    return Judged(bundle, worse, train, test, folder / "out", evaluation)
