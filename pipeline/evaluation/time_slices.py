"""Slices by the day and the hour of the rows' events, and deciles of how active users and items are.

Shape legend: N rows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.errors import ConfigError
from features.source.row_types import DAY_MS
from features.source.zones import local_ms
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.slices import Masks, by_column

MOST_DAYS = 62
_HOUR_MS = 3_600_000
TIME_SLICES = {"day", "hour", "user_activity", "item_activity"}


def by_time(predictions: Predictions, names: Sequence[str], zone: str) -> dict[str, Masks]:
    """Masks [N] by slice and value: ``day`` where there are several, ``hour`` and activity where they are named.

    Activity is the number of rows here of the row's user or item, in tenths of the rows.

    Raises:
        ConfigError: a name that is none of these, or one that the rows have no column for.
    """
    unknown = [name for name in names if name not in TIME_SLICES]
    if unknown:
        message = (
            f"cannot slice by {unknown[0]!r}; without a bundle's features there are {', '.join(sorted(TIME_SLICES))}"
        )
        raise ConfigError(message)
    for name in names:
        column = "time" if name in {"day", "hour"} else name.partition("_")[0]
        if not getattr(predictions, column).any():
            message = (
                f"cannot slice by {name!r}: the rows have no {column}; name its column, as in --columns {column}=..."
            )
            raise ConfigError(message)
    slices: dict[str, Masks] = {}
    if predictions.time.any():
        local = np.asarray(local_ms(predictions.time, zone))
        days = local // DAY_MS
        distinct = np.unique(days)
        if 1 < distinct.size <= MOST_DAYS:
            slices["day"] = {str(np.datetime64(int(day), "D")): days == day for day in distinct}
        if "hour" in names:
            hours = local % DAY_MS // _HOUR_MS
            slices["hour"] = {f"{hour:02d}": hours == hour for hour in np.unique(hours)}
    for side, keys in (("user", predictions.user), ("item", predictions.item)):
        if f"{side}_activity" in names:
            slices[f"{side}_activity"] = _deciles(keys)
    return slices


def file_slices(
    predictions: Predictions, path: Path, names: Sequence[str], numbers: NDArray[np.int64] | None = None
) -> dict[str, Masks]:
    """The slices of a file of scores: by its columns and by time.

    `numbers` are the places of `predictions` among the file's rows, where they are not all of them.

    Raises:
        ConfigError: the file has no such column.
    """
    moments = [name for name in names if name in TIME_SLICES]
    others = tuple(name for name in names if name not in moments)
    return by_column(others, path, numbers) | by_time(predictions, moments, "UTC")


def _deciles(keys: NDArray[np.uint64]) -> Masks:
    """Rows by how many rows their key has; a tenth of the rows each, but equal numbers stay together."""
    _, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    rows = counts[place]
    cuts = np.unique(np.quantile(rows, np.linspace(0.0, 1.0, 11)[1:-1], method="lower"))
    band = np.searchsorted(cuts, rows, side="left")
    tenths = {}
    for number in np.unique(band):
        mask = band == number
        low, high = int(rows[mask].min()), int(rows[mask].max())
        tenths[f"{low} rows" if low == high else f"{low}-{high} rows"] = mask
    return tenths
