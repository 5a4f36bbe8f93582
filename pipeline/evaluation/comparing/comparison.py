"""The result of a comparison: what ``comparison.json`` holds, for two models and for more."""

from pathlib import Path

from contract.files import write_text
from contract.settings import Settings
from pipeline.evaluation.comparing.paired_test import Difference, Reasons
from pipeline.evaluation.comparing.slice_differences import SliceDifference
from pipeline.evaluation.result import EvaluationMethod
from pipeline.evaluation.slice_tests import named_few

COMPARISON_FILE = "comparison.json"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_MODELS = len(_LETTERS)


class PairedComparison(Settings):
    """Task -> metric -> difference, over the same rows and the same draws of users.

    `undefined` says by task and metric why these rows do not define it; `untested` are slices with too few users.
    """

    a: str
    b: str
    rows: int
    tasks: dict[str, dict[str, Difference]]
    method: EvaluationMethod
    undefined: Reasons = {}
    units: dict[str, str] = {}
    slices: tuple[SliceDifference, ...] = ()
    untested: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def save(self, directory: Path) -> Path:
        """Write ``comparison.json`` in one step and return its path."""
        path = directory / COMPARISON_FILE
        write_text(self.model_dump_json(indent=1) + "\n", path)
        return path

    def lines(self) -> list[str]:
        """For a person: each difference with its interval and verdict, the headline of each task first."""
        return Comparison(models=(self.a, self.b), notes=self.notes, pairs=(self,)).lines()


class Comparison(Settings):
    """Every model against the first one, on the same rows; `pairs` are in the order of the models after it.

    The p-values and the intervals of slices are adjusted for all pairs together.
    """

    models: tuple[str, ...]
    notes: tuple[str, ...] = ()
    pairs: tuple[PairedComparison, ...]

    @property
    def rows(self) -> int:
        """Rows that all models have in common."""
        return self.pairs[0].rows

    def as_json(self) -> dict[str, object]:
        """Of two models as `PairedComparison`, which is what programs read; of more all pairs."""
        shown = self.pairs[0] if len(self.pairs) == 1 else self
        return shown.model_dump(mode="json")

    def save(self, directory: Path) -> Path:
        """Write ``comparison.json``, as `as_json` gives it, in one step and return its path."""
        directory.mkdir(parents=True, exist_ok=True)
        if len(self.pairs) == 1:
            return self.pairs[0].save(directory)
        path = directory / COMPARISON_FILE
        write_text(self.model_dump_json(indent=1) + "\n", path)
        return path

    def named_pairs(self) -> list[tuple[str, PairedComparison]]:
        """Each pair with the letter of its second model."""
        return list(zip(_LETTERS[1:], self.pairs, strict=False))

    def lines(self) -> list[str]:
        """For a person: each difference with its interval and verdict, the headline of each task first."""
        lines = [f"{letter}: {model}" for letter, model in zip(_LETTERS, self.models, strict=False)]
        lines += [f"note: {note}" for note in self.notes]
        for letter, pair in self.named_pairs():
            lines.append(f"{self.rows} rows; {letter} minus A with 95 % interval")
            lines += [line for task in pair.tasks for line in _task_lines(pair, task, letter)]
            lines += _slice_lines(pair, letter)
        models = "" if len(self.pairs) == 1 else ", metrics and models" if self.pairs else ""
        lines.append(f"* named beforehand; p is adjusted for all tasks{models or ' and metrics'} (Holm)")
        return lines


def _task_lines(pair: PairedComparison, task: str, letter: str) -> list[str]:
    lines = []
    for metric, gap in sorted(pair.tasks[task].items(), key=lambda each: not each[1].headline):
        lines.append(
            f"{'*' if gap.headline else ' '} {task:<16} {metric:<12} A {gap.a:.4f}  {letter} {gap.b:.4f}  "
            f"{gap.difference:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]  p {gap.p_adjusted:.3f}  "
            f"{gap.verdict(letter)}"
        )
    reasons: dict[str, list[str]] = {}
    for metric, why in pair.undefined.get(task, {}).items():
        reasons.setdefault(why, []).append(metric)
    return lines + [
        f"  {task:<16} {', '.join(names)}: not defined because {why}" for why, names in reasons.items()
    ]  # fmt: skip


def _slice_lines(pair: PairedComparison, letter: str) -> list[str]:
    """The slices that clearly differ, and of how many tests that is said."""
    lines = [
        f"  {each.task} where {each.slice} is {each.value}: {each.metric} A {each.a:.4f}  {letter} {each.b:.4f}  "
        f"{each.difference:+.4f} [{each.low:+.4f}, {each.high:+.4f}] on {each.rows} rows"
        for each in pair.slices
        if each.differs
    ]
    if pair.slices:
        count = f"{len(lines)} of {len(pair.slices)}" if lines else f"none of {len(pair.slices)}"
        lines.insert(0, f"  slices: {count} differ clearly, by intervals that hold for all of them together")
    if pair.untested:
        lines.append(f"  too few users to tell: {named_few(pair.untested)}")
    return lines
