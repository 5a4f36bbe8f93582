"""Days of a published model: each judged as it was served, held against the days before, and kept in a directory.

::

    runs/shop/days/2026-11-25/evaluation.json   metrics with intervals of the rows as served
    runs/shop/days/2026-11-25/day.json          which versions served, and what the rules found
    runs/shop/days/2026-11-25/report.html       the report of that day
    runs/shop/days/index.html                   metric and calibration over days
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Self

import numpy as np

from contract.errors import DataError, MoerankError
from contract.files import write_text
from contract.settings import Settings
from pipeline.evaluation.alarm_rules import DayDrop, alarm_findings, drops, headlines_of
from pipeline.evaluation.measure import PREDICTIONS_FILE, Context, measure
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.quality_gate import GateFinding
from pipeline.evaluation.result import EVALUATION_FILE, Evaluation
from pipeline.evaluation.time_slices import by_time
from pipeline.monitor.served_rows import ServedDay, together, training_means
from pipeline.project.project_config import ProjectConfig
from pipeline.report import write_report

DAY_FILE = "day.json"


class JudgedDay(Settings):
    """What was found about a day: rows by version, versions left out with the reason, rules and drops."""

    model: str
    day: date
    versions: dict[int, int]
    left_out: dict[int, str] = {}
    findings: tuple[GateFinding, ...] = ()
    drops: tuple[DayDrop, ...] = ()

    @property
    def alarms(self) -> list[str]:
        """What is wrong, in words; empty on a good day."""
        return [finding.text for finding in self.findings if not finding.passed]

    def save(self, directory: Path) -> None:
        """Write ``day.json``."""
        write_text(self.model_dump_json(indent=1) + "\n", directory / DAY_FILE)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read ``day.json``.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return cls.model_validate_json((directory / DAY_FILE).read_bytes())
        except (OSError, ValueError) as error:
            message = f"{directory / DAY_FILE} cannot be read: {error}; judge the day again with `moerank monitor`"
            raise DataError(message) from error


def judge_day(
    config: ProjectConfig, served: ServedDay, rows: Mapping[int, Predictions], left_out: Mapping[int, str]
) -> JudgedDay:
    """Measure the rows of a day as they were served, ask the rules, and write the day's directory.

    Args:
        config: The project.
        served: Which versions served the day.
        rows: By version the rows that it served, with its scores.
        left_out: By version why its rows could not be scored.

    Raises:
        DataError: no version has rows, or values that no metric can use.
        ConfigError: a rule names what there is not.
    """
    if not rows:
        message = f"nothing of {served.day} could be scored: {'; '.join(left_out.values()) or 'no version served it'}"
        raise DataError(message)
    directory = config.days_dir / served.day.isoformat()
    everything = together(list(rows.values()))
    constant = np.concatenate(
        [training_means(config, version, list(everything.tasks), part.rows) for version, part in rows.items()]
    )
    versions = np.repeat(list(rows), [part.rows for part in rows.values()])
    masks = {} if len(rows) == 1 else {"version": {str(each): versions == each for each in rows}}
    masks |= by_time(everything, [], config.data.events.time_zone)
    notes = (*served.lines(), *(f"version {version} is left out: {why}" for version, why in left_out.items()))
    name = f"{config.name} as served on {served.day}"
    context = Context(name, config.data.events.path, {"constant": constant}, masks, notes=notes)
    evaluation = measure(everything, context, config.evaluate, directory)
    everything.save(directory / PREDICTIONS_FILE)
    before = [each.tasks for day, each in evaluated_days(config.days_dir) if day < served.day]
    day_drops = drops(evaluation.tasks, before[::-1], config.monitor)
    judged = JudgedDay(
        model=config.name,
        day=served.day,
        versions={version: part.rows for version, part in rows.items()},
        left_out=dict(left_out),
        findings=alarm_findings(evaluation, day_drops, config.monitor),
        drops=day_drops,
    )
    judged.save(directory)
    units = {task.name: task.unit for task in config.data.tasks}
    write_report(directory, units=units)
    return judged


def evaluated_days(days_dir: Path, last: int | None = None) -> list[tuple[date, Evaluation]]:
    """The days that were judged, with their evaluations, the earliest first; at most the `last` ones."""
    folders = sorted(path.parent for path in days_dir.glob(f"[0-9]*/{EVALUATION_FILE}"))
    days = []
    for folder in folders[-last:] if last else folders:
        try:
            days.append((date.fromisoformat(folder.name), Evaluation.load(folder)))
        except (ValueError, MoerankError):
            continue  # of another version of moerank, or no day at all
    return days


def alarms_by_day(days_dir: Path) -> dict[date, list[str]]:
    """The days with an alarm, and what was wrong."""
    alarms = {}
    for path in sorted(days_dir.glob(f"[0-9]*/{DAY_FILE}")):
        try:
            judged = JudgedDay.load(path.parent)
        except MoerankError:
            continue  # of another version of moerank
        if judged.alarms:
            alarms[judged.day] = judged.alarms
    return alarms


def day_lines(judged: JudgedDay, evaluation: Evaluation, units: Mapping[str, str]) -> list[str]:
    """For a person: the versions, each task's headline and calibration, and what the rules found."""
    served = ", ".join(f"version {version} {rows:,} rows" for version, rows in judged.versions.items())
    lines = [f"{judged.model} on {judged.day}: {served}"]
    lines += [f"  version {version} is left out: {why}" for version, why in judged.left_out.items()]
    for task, metric, estimate in headlines_of(evaluation.tasks):
        unit = f" {units[task]}" if units.get(task) and metric == "rmse" else ""
        ratio = evaluation.tasks[task].get("calibration")
        calibration = f", predicted / actual {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio else ""
        lines.append(
            f"  {task}: {metric} {estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]{unit}{calibration}"
        )
    return lines + [f"  {'ok' if each.passed else 'ALARM'}: {each.text}" for each in judged.findings]
