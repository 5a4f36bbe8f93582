"""The quality report as one HTML page without scripts or outside files."""

import html

from features.quality.quality_report import FeatureProfile, QualityReport

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.15em .7em;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}svg{background:#f7f7f7}.bad{color:#b00020;font-weight:600}"
)
_WIDTH, _HEIGHT, _MARGIN = 640, 120, 8
_DRIFT = 0.2
"""The usual bound above which a distribution is said to have shifted."""
_FEW_BINS = 4
"""With fewer components than this, a number tells a model hardly more than a flag would."""


def quality_page(report: QualityReport) -> str:
    """The whole page."""
    leaks = "".join(
        f"<li class=bad>{html.escape(str(leak['feature']))} tells {html.escape(str(leak['task']))}: "
        f"{html.escape(str(leak['measure']))} {leak['value']}</li>"
        for leak in report.leaks
    )
    rates = "".join(_rates(task, days) for task, days in report.label_rates.items())
    rows = "".join(_row(name, profile) for name, profile in report.features.items())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Data quality</title><style>{_STYLE}</style>"
        f"<h1>Data quality</h1><p>{report.rows:,} rows, {report.duplicates:,} repeat another's keys and time, "
        f"{report.late:,} are late.</p><h2>Leaks</h2><ul>{leaks or '<li>none found</li>'}</ul>"
        f"<h2>Mean label by day</h2>{rates}<h2>Features</h2><table><tr><th>feature<th>kind<th>null<th>lowest"
        f"<th>highest<th>distinct<th>bins<th>PSI<th>distribution</tr>{rows}</table></html>\n"
    )


def _rates(task: str, days: dict[str, float]) -> str:
    values = list(days.values())
    low, high = min(values, default=0.0), max(values, default=1.0)
    height = _HEIGHT - 2 * _MARGIN
    step = (_WIDTH - 2 * _MARGIN) / max(len(values) - 1, 1)
    points = " ".join(
        f"{_MARGIN + number * step:.1f},{_HEIGHT - _MARGIN - (value - low) / ((high - low) or 1) * height:.1f}"
        for number, value in enumerate(values)
    )
    span = f"{next(iter(days), '')} to {next(reversed(days), '')}, {low:.4g} to {high:.4g}"
    return (
        f"<figure><figcaption>{html.escape(task)} ({span})</figcaption><svg width={_WIDTH} height={_HEIGHT} role=img "
        f'aria-label="{html.escape(task)} by day"><polyline fill=none stroke="#1a5fb4" stroke-width=2 '
        f'points="{points}"/></svg></figure>'
    )


def _row(name: str, profile: FeatureProfile) -> str:
    shares = profile.distribution.shares
    tallest, width = max(shares, default=1.0) or 1.0, 160 / max(len(shares), 1)
    bars = "".join(
        f"<rect x={number * width:.1f} y={24 - share / tallest * 24:.1f} width={width * 0.9:.1f} "
        f'height={share / tallest * 24:.1f} fill="#1a5fb4"/>'
        for number, share in enumerate(shares)
    )
    drift = "" if profile.psi is None else f"{profile.psi:.3f}"
    bad = " class=bad" if profile.psi is not None and profile.psi > _DRIFT else ""
    numbers = "".join(f"<td>{'' if value is None else format(value, '.6g')}" for value in (profile.low, profile.high))
    return (
        f"<tr><td>{html.escape(name)}<td>{profile.kind}<td>{profile.null_rate:.2%}{numbers}"
        f"<td>{'' if profile.distinct is None else profile.distinct}{_bins(profile)}<td{bad}>{drift}"
        f"<td><svg width=160 height=24 role=img>{bars}</svg></tr>"
    )


def _bins(profile: FeatureProfile) -> str:
    if profile.bins is None:
        return "<td>"
    if profile.bins >= _FEW_BINS:
        return f"<td>{profile.bins}"
    return f'<td class=bad title="few distinct values: an id may serve better than a number">{profile.bins}'
