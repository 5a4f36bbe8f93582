"""One epoch: batches to steps, checkpoints and validations on the way, and the epoch's record at its end."""

import time
from datetime import timedelta
from typing import Any

from contract.inputs import Batch
from models.diagnostics.diagnosis import diagnose
from models.diagnostics.expert_health import ExpertHealth
from models.row_share import RowShare
from pipeline.training import expert_record
from pipeline.training.bad_batch import BadBatch
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.interruption import Interruption
from pipeline.training.learning_rate import rate_factor
from pipeline.training.loss_meter import LossMeter
from pipeline.training.profiling import StepProfiler
from pipeline.training.rank_agreement import Wishes
from pipeline.training.run_progress import EpochRecord, RunProgress
from pipeline.training.training_log import TrainingLog
from pipeline.training.training_run import TrainingRun
from pipeline.training.training_step import StepResult
from pipeline.training.validation import Validation

_BOARD_EVERY = 50


class EpochLoop:
    """Runs the epochs of a run; `progress` says where it stands."""

    def __init__(
        self,
        run: TrainingRun,
        progress: RunProgress,
        training_log: TrainingLog,
        stop: Interruption,
        writer: CheckpointWriter,
        profiler: StepProfiler,
    ) -> None:
        """Go on from `progress`."""
        self._profiler = profiler
        self.run, self.progress, self.log, self.stop, self.writer = run, progress, training_log, stop, writer
        self._tasks = [task.name for task in run.schema.tasks]
        self._meter = LossMeter(run.schema.tasks, run.device)
        self._validation: Validation | None = None
        self._found = ""
        self._patience = run.config.early_stopping.patience if run.config.early_stopping else None
        self._begin()

    def epoch(self) -> RunProgress:
        """Train to the epoch's end, or until a validation stops it; validate, write it all down and save."""
        self._begin()
        rows = self.run.rows
        copies = self.run.step.copies
        stretches = rows.stretches(self.progress.epoch, self.progress.row, rows=copies.rows)
        batches = copies.ahead(stretches)
        for begin, batch in zip(rows.bounds(self.progress.row), batches, strict=True):
            result = self._step(begin, batch)
            if result.losses is not None:
                self._meter.add(result.losses)
            self._note_skipped(result.bad, counted=result.losses is not None)
            self.progress = self.progress.after_step(rows.batch_end(begin))
            self._profiler.step()
            self.log.live(self._where)
            if self.progress.step % _BOARD_EVERY == 0:
                self.log.scalars(self._scalars(), self.progress.step)
            if result.wishes.stop:
                self._interrupt()
            elif self._updates and self.progress.row < rows.total_rows:
                self._between_steps(result.wishes)
            if self.progress.stopped:
                break
        self._settle()
        return self._end()

    def _note_skipped(self, bad: BadBatch | None, *, counted: bool) -> None:
        if bad is not None:
            self.progress = self.progress.model_copy(update={"skipped": self.progress.skipped + 1})
            self.log.say(f"skipped a batch: {bad}")
            if counted:
                self._meter.leave_out()

    def _settle(self) -> None:
        """Nothing is validated or saved before it is known that the last step was finite."""
        self._note_skipped(self.run.step.settle(), counted=True)

    def _begin(self) -> None:
        self._started, self._first = time.monotonic(), self.progress
        self._before, self._updates = self.progress, True
        self._meter = LossMeter(self.run.schema.tasks, self.run.device)
        self.run.form.interrupted()
        self.run.sharded.model.train()

    def _step(self, begin: int, batch: Batch) -> StepResult:
        rows = self.run.rows
        first, last = rows.share(begin)
        share = RowShare(first - begin, last - begin, rows.batch_end(begin) - begin, rows.repeated(begin))
        step, every = self.progress.step, self.run.config.accumulate
        self._updates = (step + 1) % every == 0 or rows.batch_end(begin) == rows.total_rows
        # A checkpoint holds no gradients: training ends, or saves, only where none are kept for the next batch.
        wishes = Wishes(self.stop.asked and self._updates, self._updates and self.writer.is_due(self.progress))
        if decided := self.run.form.step():
            self.log.say(decided)
        return self.run.step(batch, share, step, self.run.total_steps, wishes, update=self._updates)

    def _between_steps(self, wishes: Wishes) -> None:
        """Validate where it is time to, and save where it is time to or this is the best so far."""
        best = self.progress.best
        if wishes.save or self._validation_is_due():
            self._settle()
            self.run.form.interrupted()
        if self._validation_is_due():
            self._check()
        self._before = self.progress
        if wishes.save or (self.progress.best != best and not self.progress.stopped):
            self.writer.save(self.progress)

    def _validation_is_due(self) -> bool:
        settings, now, before = self.run.config.validation, self.progress, self._before
        passed = ((settings.every_steps, before.step, now.step), (settings.every_rows, before.row, now.row))
        return any(every is not None and last // every < this // every for every, last, this in passed)

    def _check(self) -> None:
        validation = self._validate()
        record: EpochRecord = {"epoch": self.progress.epoch + 1, "row": self.progress.row, "step": self.progress.step}
        record["valid"] = _plain(validation)
        value = self.run.stopping_metric.value(validation.metrics)
        self.progress = self.progress.after_check(record, value, self._patience)
        self.log.check(record, self.progress)
        self.run.sharded.model.train()

    def _validate(self) -> Validation:
        self.log.live(lambda: f"epoch {self.progress.epoch + 1}: validating", at_once=True)
        self._validation = self.run.validate()
        figures = (
            f"{task} {value:.4f}" for task, scores in self._validation.metrics.items() for value in scores.values()
        )
        self._found = f", valid {', '.join(figures)}, union/n {self._validation.health.union:.2f}"
        return self._validation

    def _end(self) -> RunProgress:
        seconds = time.monotonic() - self._started
        self._meter.join_ranks()
        # A validation that stopped the epoch was of these weights.
        stopped = self._validation if self.progress.stopped else None
        validation = stopped or self._validate()
        rows = self.progress.row - self._first.row
        steps = self.progress.step - self._first.step
        record = self._record(validation) | {"skipped_batches": self.progress.skipped, "steps": steps}
        record |= {"seconds": seconds, "rows_per_second": rows / max(seconds, 1e-9)}
        value = self.run.stopping_metric.value(validation.metrics)
        self.progress = self.progress.after_epoch(record, value, self._patience)
        self.writer.save(self.progress)
        self.log.epoch(self.progress)
        self._say_stopped()
        self._show_experts(validation.health)
        return self.progress

    def _say_stopped(self) -> None:
        stopping, best = self.run.config.early_stopping, self.progress.best
        if self.progress.stopped and stopping is not None and best is not None:
            self.log.say(
                f"stopped early: {self.progress.since_best} validations without a better {stopping.metric}; the best "
                f"was at step {best.step} of epoch {best.epoch}"
            )

    def _interrupt(self) -> None:
        self._settle()
        self.writer.save(self.progress, wait=True)
        self.log.say(f"stopped at step {self.progress.step}; run again to go on from there")
        raise KeyboardInterrupt

    def _show_experts(self, health: ExpertHealth) -> None:
        if self.run.sharded.ranker.network.levels:
            self.log.image("experts/share of rows", expert_record.picture(health.share, self._tasks), self.progress)
            self.log.image("experts/mean weight", expert_record.picture(health.weight, self._tasks), self.progress)
        if self.progress.stopped or self.progress.epoch == self.run.config.epochs:
            for warning in diagnose(health, self._tasks):
                self.log.say(f"experts: {warning}")

    def _record(self, validation: Validation) -> EpochRecord:
        trained: EpochRecord = {name: {"loss": loss} for name, loss in self._meter.tasks().items()}
        return {
            "epoch": self.progress.epoch + 1,
            "step": self.progress.step,
            "train": {"total": {"loss": self._meter.total}, **trained},
            "penalties": dict(self._meter.penalties()),
            "valid": _plain(validation),
            **expert_record.record(validation.health, self._tasks),
        }

    def _rate(self) -> float:
        config = self.run.config
        return config.learning_rate * rate_factor(config, self.progress.step, self.run.total_steps)

    def _scalars(self) -> dict[str, float]:
        return {"step/loss": self._meter.total, "step/learning_rate": self._rate()}

    def _where(self) -> str:
        """Where training stands: place, speed, time left (without validation), rate, losses and metrics by task."""
        rows, epochs, progress = self.run.rows.total_rows, self.run.config.epochs, self.progress
        speed = max((progress.row - self._first.row) / max(time.monotonic() - self._started, 1e-9), 1e-9)
        left = timedelta(seconds=round(((epochs - progress.epoch) * rows - progress.row) / speed))
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in self._meter.tasks().items())
        return (
            f"epoch {progress.epoch + 1}/{epochs}, row {progress.row:,}/{rows:,}, {speed:,.0f} rows/s, "
            f"{left} left, rate {self._rate():.2g}, loss {self._meter.total:.4f} ({losses}){self._found}"
        )


def _plain(validation: Validation) -> dict[str, Any]:
    return {name: dict(values) for name, values in validation.metrics.items()}
