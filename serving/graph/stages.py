"""Cheaper ways to answer that a bundle may hold: a cascade, fewer experts per row, and a ranking by item priors.

Shape legend: N candidates, M of them refined, T tasks, I items.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.graph_names import CASCADE, CHEAP_FILE, FEWER_FILE, ITEM_PRIOR_FILE
from contract.hashing import Hashes
from contract.inputs import Inputs
from contract.prepared import taken
from contract.schema import Schema
from contract.score import Score
from serving.graph.engine import Engine
from serving.graph.fewer_experts import FewerExpertsEngine

LOG = logging.getLogger("moerank.registry")
Predictions = dict[str, NDArray[np.float32]]
CASCADE_STAGE, FEWER_STAGE, FALLBACK_STAGE = "cascade", "fewer experts", "fallback"
"""What answers say of how they were made; all other answers come of the whole model."""
PRIOR_KEY = "item"


class Refined(NamedTuple):
    """A cascade's predictions [N] by task, and the positions [M] of the candidates that the experts saw."""

    predictions: Predictions
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class ItemPrior:
    """Items' mean labels [I] by task, by the sorted hashes [I] of their keys; `unknown` holds the means of all rows."""

    hashes: Hashes
    means: Mapping[str, NDArray[np.float32]]
    unknown: Mapping[str, float]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read what the export wrote: one row per item, and one of hash 0 for unknown items."""
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        hashes = table[PRIOR_KEY].to_numpy()
        order = np.argsort(hashes, kind="stable")
        columns = {name: table[name].to_numpy()[order] for name in table.column_names if name != PRIOR_KEY}
        return cls(hashes[order], columns, {name: float(values[0]) for name, values in columns.items()})

    def predict(self, hashes: Hashes) -> tuple[Predictions, NDArray[np.bool_]]:
        """Each candidate's means by task, float32 [N], and who is unknown [N]."""
        rows = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        known = (self.hashes[rows] == hashes) & (hashes != 0)
        predictions = {
            task: np.where(known, means[rows], np.float32(self.unknown[task])).astype(np.float32)
            for task, means in self.means.items()
        }
        return predictions, ~known


@dataclass(frozen=True)
class Stages:
    """What of this a bundle holds; `most`: how many candidates of a cascade the experts see, 0 for no cascade."""

    cheap: Engine | None = None
    fewer: FewerExpertsEngine | None = None
    prior: ItemPrior | None = None
    most: int = 0

    @classmethod
    def open(
        cls,
        path: Path,
        schema: Schema,
        files: Sequence[str],
        how: Mapping[str, Any],
        *,
        most: int | None = None,
        experts: int | None = None,
        fewer_file: str = FEWER_FILE,
    ) -> Self:
        """Load it; `how` is how graphs are run.

        `most` candidates and `experts` a row override what the bundle says; 0: no cascade, always all experts.
        `fewer_file` is the graph of fewer experts for this device.

        Raises:
            IntegrityError: a graph that does not load, or not one of this schema.
        """
        cheap = Engine(path, schema, **how, file=CHEAP_FILE) if CHEAP_FILE in files else None
        has_fewer = FEWER_FILE in files and experts != 0
        fewer = FewerExpertsEngine(path, schema, experts, how, fewer_file) if has_fewer else None
        prior = ItemPrior.open(path / ITEM_PRIOR_FILE) if ITEM_PRIOR_FILE in files else None
        for wanted, what, file in ((most, "--cascade", CHEAP_FILE), (experts, "--fewer-experts", FEWER_FILE)):
            if wanted and file not in files:
                LOG.warning("%s has no effect: %s holds no %s; export it with export.stages", what, path, file)
        if most is None:
            most = 0 if cheap is None else int(cheap.properties.get(CASCADE, "0"))
        return cls(cheap, fewer, prior, most)

    def cascades(self, candidates: int) -> bool:
        """Whether these are more candidates than the experts should see."""
        return self.cheap is not None and 0 < self.most < candidates

    def check(self, inputs: Inputs) -> None:
        """Answer a golden request once, so that a graph that cannot run is not served, and is warm.

        Raises:
            PredictionError: a graph cannot run.
        """
        for engine in (self.cheap, self.fewer):
            if engine is not None:
                engine.predict(inputs)

    def refine(self, inputs: Inputs, score: Score, predict: Callable[[Inputs], Predictions]) -> Refined:
        """Score all candidates by the cheap head, and the best of them by `predict`.

        Raises:
            PredictionError: a graph cannot run.
        """
        assert self.cheap is not None  # noqa: S101 `cascades` said so
        cheap_scores = self.cheap.predict(inputs)
        rows = np.sort(np.argsort(-score(cheap_scores), kind="stable")[: self.most])
        best = predict(Inputs(inputs.request, taken(inputs.candidate, rows)))
        predictions = {task: values.copy() for task, values in cheap_scores.items()}
        for task, values in best.items():
            predictions[task][rows] = values
        return Refined(predictions, rows)


NO_STAGES = Stages()
