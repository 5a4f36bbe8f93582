"""How far a run has come: kept in every checkpoint, so that a rerun goes on from there."""

from typing import Any

from pydantic import JsonValue, model_validator

from contract.settings import Settings

EpochRecord = dict[str, JsonValue]


class Best(Settings):
    """The best validation so far: its epoch (from 1), its checkpoint's step and its metric; higher is better."""

    epoch: int
    step: int
    value: float
    metrics: dict[str, dict[str, float]] = {}
    """What validation found there, by task and metric."""


class RunProgress(Settings):
    """`epoch` (from 0) and, in its order of rows, `row` come next; `step` counts all steps; `stopped` on purpose.

    The position is in rows of all ranks, so that another number of ranks goes on where this one stopped.
    """

    epoch: int = 0
    row: int = 0
    step: int = 0
    history: tuple[EpochRecord, ...] = ()
    checks: tuple[EpochRecord, ...] = ()
    """Validations within epochs."""
    best: Best | None = None
    since_best: int = 0
    """Validations since the best one."""
    stopped: bool = False
    skipped: int = 0
    """Batches of this epoch that were left out."""

    @model_validator(mode="before")
    @classmethod
    def _finished_epochs_of_old(cls, data: Any) -> Any:
        # Earlier versions counted steps of a rank within the epoch; of finished runs the count is 0.
        if isinstance(data, dict) and data.get("step_in_epoch") == 0:
            return {name: value for name, value in data.items() if name != "step_in_epoch"}
        return data

    def after_step(self, row: int) -> "RunProgress":
        """One step on, to a row of the epoch's order."""
        return self.model_copy(update={"step": self.step + 1, "row": row})

    def after_check(self, record: EpochRecord, value: float | None, patience: int | None) -> "RunProgress":
        """One validation within an epoch on, with its record and its value; after `patience` worse ones it stops."""
        return self._judged(record, value, patience).model_copy(update={"checks": (*self.checks, record)})

    def after_epoch(self, record: EpochRecord, value: float | None, patience: int | None) -> "RunProgress":
        """One epoch on, with its record and the value that early stopping goes by (None: the last epoch is best).

        Of an epoch that was stopped in the middle, the last validation has been judged already.
        """
        judged = self if self.stopped else self._judged(record, value, patience)
        history = (*self.history, record)
        return judged.model_copy(update={"epoch": self.epoch + 1, "row": 0, "history": history, "skipped": 0})

    def _judged(self, record: EpochRecord, value: float | None, patience: int | None) -> "RunProgress":
        if value is None or self.best is None or value > self.best.value:
            value = 0.0 if value is None else value
            metrics: Any = record.get("valid", {})
            best = Best(epoch=self.epoch + 1, step=self.step, value=value, metrics=metrics)
            return self.model_copy(update={"best": best, "since_best": 0})
        since = self.since_best + 1
        stopped = patience is not None and since >= patience
        return self.model_copy(update={"since_best": since, "stopped": stopped})
