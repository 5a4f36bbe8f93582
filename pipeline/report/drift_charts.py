"""Drift on a page: what drifted most, before and now side by side."""

from pathlib import Path
from typing import Any

from pipeline.evaluation.drift import Drift, DriftOf
from pipeline.report.charts import Chart
from pipeline.report.pages import write_page
from pipeline.report.short_names import meanings
from pipeline.report.svg import Axis, Plot, axis, number

DRIFT_PAGE = "drift.html"
_MOST = 12
_LONGEST, _ROW, _FRAME, _LEFT, _WIDTH = 18, 16, 56, 130, 420


def drift_values(drift: Drift | None) -> dict[str, Any]:
    """What the template of the drift's section takes."""
    return {"drift": drift, "drift_charts": [] if drift is None else [_chart(each) for each in drift.by_psi[:_MOST]]}


def write_drift_page(drift: Drift, directory: Path, model: str) -> Path:
    """Write ``drift.html``: the section on a page of its own."""
    words = meanings(["PSI", "KS", "JS"])
    return write_page(directory / DRIFT_PAGE, "drift.html", model=model, words=words, **drift_values(drift))


def _chart(drift: DriftOf) -> Chart:
    """Shares before (grey) and now (blue) by bin."""
    rows = [place for place, shares in enumerate(zip(drift.before, drift.now, strict=True)) if any(shares)]
    names = [
        name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in (drift.bins[row] for row in rows)
    ]
    x = axis([0.0, *drift.before, *drift.now], "share", pad=0.0)
    height = _FRAME + _ROW * len(rows)
    y = Axis(0.0, float(max(len(rows), 1)), "", ())
    plot = Plot(x, y, f"drift of {drift.name}", _WIDTH, height, rows=names, left=_LEFT)
    for at, row in enumerate(rows):
        tip = f"{drift.bins[row]}: {drift.before[row]:.2%} before, {drift.now[row]:.2%} now"
        plot.box((0.0, at + 0.1), (drift.before[row], at + 0.5), "area c1", tip)
        plot.box((0.0, at + 0.5), (drift.now[row], at + 0.9), "area c0", tip)
    return Chart(f"{drift.name}, PSI {number(drift.psi)}", plot.svg(), (("c1", "before"), ("c0", "now")))
