"""Build a draft's features from some rows, and leave out what knows the labels or cannot be a feature."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from contract.errors import ConfigError, MoerankError
from features.build import build
from features.feature_config import FeaturesConfig
from features.quality.check_data import QUALITY_FILE
from pipeline.project.draft_recipe import Draft
from pipeline.project.sample_log import sampled

_ROWS = 20_000
_TRIES = 20


def tried(draft: Draft) -> Draft:
    """The draft without features that a build refuses, or that alone tell a label; notes say which.

    Raises:
        ConfigError: no feature is left.
    """
    for drawn in (True, False):
        for _ in range(_TRIES):
            if not draft.features:
                message = "no column can be a feature; " + (
                    "; ".join(draft.notes) or "there is none but labels and times"
                )
                raise ConfigError(message)
            try:
                report = _build(draft, drawn=drawn)
            except MoerankError as error:
                named = re.search(r"feature '([^'\[]+)", str(error))
                if named is None or named[1] not in draft.optional:
                    return replace(draft, notes=[*draft.notes, f"could not be tried on some rows: {error}"])
                draft = draft.without({named[1]}, f"a build says: {str(error).partition(';')[0]}")
            else:
                draft = _without_leaks(draft, report) if drawn else draft
                break
    return draft


def _build(draft: Draft, *, drawn: bool) -> dict[str, Any]:
    """The quality report of some rows."""
    config = FeaturesConfig.model_validate(yaml.safe_load(draft.text().replace("$$", "$"))["data"])
    with sampled(config, _ROWS, drawn=drawn) as (small, folder):
        build(small, folder / "features", lambda _: None)
        report: dict[str, Any] = json.loads(Path(folder, "features", QUALITY_FILE).read_text(encoding="utf-8"))
    return report


def _without_leaks(draft: Draft, report: dict[str, Any]) -> Draft:
    leaks = [(leak["feature"].partition("[")[0], leak["value"]) for leak in report["leaks"]]
    bound = FeaturesConfig.model_fields["checks"].default.leakage_at
    certain = {name for name, value in leaks if value >= bound and name in draft.optional}
    doubtful = {name for name, _ in leaks if name in draft.optional} - certain
    if certain:
        draft = draft.without(certain, "it alone tells a label, and so came with it or after it")
    if doubtful:
        note = f"almost tells a label alone; is it known before? {', '.join(sorted(doubtful))}"
        draft = replace(draft, notes=[*draft.notes, note])
    return draft
