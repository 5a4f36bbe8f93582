"""How to evaluate: the settings of ``evaluate`` in a project and on the command line."""

from typing import Annotated

from pydantic import Field

from contract.settings import Settings
from pipeline.evaluation.intervals import REPLICATES
from pipeline.evaluation.streaming.score_pairs import MOST_ROWS
from pipeline.evaluation.streaming.stream_state import MEMORY_ROWS, Budget
from pipeline.evaluation.task_metrics import LISTS_AT


class EvaluateConfig(Settings):
    """How metrics and their intervals are computed."""

    replicates: int = Field(default=REPLICATES, ge=50)
    """Bootstrap draws behind each interval."""
    slice_replicates: int = Field(default=200, ge=50)
    """Bootstrap draws behind the intervals of slices."""
    seed: int = 0
    """Of the draws."""
    slice_by: tuple[str, ...] = ()
    """Id features, or `day`, `hour`, `user_activity` and `item_activity`, by which the rows are sliced."""
    threads: int = Field(default=1, ge=1)
    """Threads of one call of the graph."""
    processes: int = Field(default=1, ge=1)
    """Processes that score rows side by side."""
    at: tuple[Annotated[int, Field(ge=1)], ...] = LISTS_AT
    """The lengths k of NDCG@k, recall@k and the other list metrics."""
    lists_by: str = "user"
    """What is ranked together in GAUC, grouped XAUC and the list metrics: ``user``, ``item`` or an id feature."""
    memory_rows: int = Field(default=MEMORY_ROWS, ge=1)
    """More rows than these are judged in one pass: some metrics on all rows, the others on all rows of some users."""
    exact_rows: int = Field(default=MOST_ROWS, ge=1)
    """More rows than these have an AUC between two bounds."""
    trees: bool = True
    """Hold the model against LightGBM on the same columns, where it is installed and training rows are given."""
    importance: int = Field(default=0, ge=0)
    """How often each feature is shuffled to see what it is worth; 0 leaves that out."""

    @property
    def budget(self) -> Budget:
        """What a pass may keep."""
        return Budget(self.memory_rows, self.exact_rows)
