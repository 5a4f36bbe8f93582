"""What a search found, as its page, its lines and a program take it."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from contract.settings import Settings
from pipeline.report.tuning_page import SearchFigures, SeedFigures, TrialFigures, write_tuning_page
from pipeline.tuning.over_seeds import PairedDifference, seed_lines
from pipeline.tuning.search import WHY, Search, as_overrides, in_words

_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Tuned(Settings):
    """The best trial's settings, as ``--set`` takes them, and how they did against the recipe over seeds."""

    trials: int
    best: int
    value: float
    metric: str
    overrides: tuple[str, ...]
    """Empty where the recipe itself was the best trial."""
    seeds: tuple[PairedDifference, ...]
    page: Path
    command: str

    def lines(self) -> list[str]:
        """For a person."""
        if not self.overrides:
            text = [f"of {self.trials} trials the recipe itself was the best ({self.metric} {self.value:.4f})"]
            return [*text, f"page: {self.page}"]
        head = f"the best of {self.trials} trials is {self.best}, {self.metric} {self.value:.4f} on validation rows:"
        settings = [f"  {override}" for override in self.overrides]
        return [head, *settings, "", *seed_lines(self.seeds), "", f"page: {self.page}", f"use it: {self.command}"]


def write_results(search: Search, seeds: Sequence[PairedDifference], judged: str) -> Tuned:
    """Write the page and return what was found."""
    best = search.best()
    values = search.values(best)
    overrides = () if search.is_recipe(values) else tuple(as_overrides(values))
    command = " ".join(["moerank run", str(search.recipe), *(f"--set '{each}'" for each in overrides)])
    figures = SearchFigures(
        project=search.base.name,
        metric=search.metric,
        trials=[trial_figures(search, trial) for trial in search.trials()],
        best=trial_figures(search, best),
        importances=search.importances(),
        log=frozenset(path for path, each in search.tune.space.items() if each.log),
        seeds=[_seed_figures(each) for each in seeds],
        seed_count=search.tune.seeds,
        judged=judged,
        command=command,
    )
    page = write_tuning_page(search.directory, figures)
    return Tuned(
        trials=len(figures.trials),
        best=best.number,
        value=best.value or 0.0,
        metric=search.metric,
        overrides=overrides,
        seeds=tuple(seeds),
        page=page,
        command=command,
    )


def trial_figures(search: Search, trial: FrozenTrial) -> TrialFigures:
    """A trial in the page's words; a pruned one's value is that of its best epoch."""
    values = search.values(trial)
    reported = max(trial.intermediate_values.values(), default=None)
    return TrialFigures(
        number=trial.number,
        state=_STATES[trial.state],
        value=trial.value if trial.state == TrialState.COMPLETE else reported,
        epoch=trial.user_attrs.get("epoch"),
        shown={path: _text(path, value) for path, value in values.items()},
        values=values,
        why=trial.user_attrs.get(WHY, ""),
    )


def _text(path: str, value: JsonValue) -> str:
    return in_words({path: value}).removeprefix(f"{path} ")


def _seed_figures(each: PairedDifference) -> SeedFigures:
    return SeedFigures(
        task=each.task,
        metric=each.metric,
        recipe=fmean(each.recipe),
        tuned=fmean(each.tuned),
        difference=each.difference,
        low=each.low,
        high=each.high,
        p=each.p,
        verdict=each.verdict,
    )
