"""The quality report as one HTML page without scripts or outside files, in the style of all pages."""

import html
from importlib.resources import files

from features.quality.quality_report import FeatureProfile, QualityReport

STYLE = "page_style.css"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_WIDTH, _HEIGHT, _MARGIN = 640, 120, 8
_SPARK_WIDTH, _SPARK_HEIGHT = 190, 44
_DRIFT = 0.2
"""The usual bound above which a distribution is said to have shifted."""
_FEW_BINS = 4
"""With fewer components than this, a number tells a model hardly more than a flag would."""


def quality_page(report: QualityReport) -> str:
    """The whole page."""
    leaks = "".join(
        f'<li class="bad">{html.escape(str(leak["feature"]))} tells {html.escape(str(leak["task"]))}: '
        f"{html.escape(str(leak['measure']))} {leak['value']}</li>"
        for leak in report.leaks
    )
    unlearned = "".join(
        f'<p class="bad">{html.escape(f"{task} learns nothing: {why}")}</p>' for task, why in report.unlearned.items()
    )
    rates = "".join(_rates(task, days) for task, days in report.label_rates.items())
    rows = "".join(_row(name, profile) for name, profile in report.features.items())
    style = files("features.quality").joinpath(STYLE).read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Data quality</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<header><p class="kicker">moerank features</p><h1>Data quality</h1>'
        f'<p class="sub">{report.rows:,} rows, {report.duplicates:,} repeat another\'s keys and time, '
        f"{report.late:,} are late</p></header>\n<main>\n"
        f"<section><h2>Leaks</h2><ul>{leaks or '<li>none found</li>'}</ul></section>\n"
        f'<section><h2>Mean label by day</h2>{unlearned}<div class="row">{rates}</div></section>\n'
        "<section><h2>Features</h2>"
        '<p class="note">Bars are of equal width in the value, or of equal ratio where a scale says log; of ids, the '
        "most frequent values, the rest as the last bar. PSI compares with the last build: above 0.2 is a shift.</p>"
        '<div class="scroll"><table><tr><th>feature</th><th>kind</th><th>null</th><th>lowest</th><th>highest</th>'
        f"<th>distinct</th><th>bins</th><th>PSI</th><th>distribution</th></tr>{rows}</table></div></section>\n"
        "</main>\n</body>\n</html>\n"
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
        f"<figure><figcaption>{html.escape(task)} ({span})</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(task)} by day">'
        f'<polyline class="line c0" points="{points}"/></svg></figure>'
    )


def _row(name: str, profile: FeatureProfile) -> str:
    drift = "" if profile.psi is None else f"{profile.psi:.3f}"
    bad = ' class="bad"' if profile.psi is not None and profile.psi > _DRIFT else ""
    numbers = "".join(
        f"<td>{'' if value is None else format(value, '.6g')}</td>" for value in (profile.low, profile.high)
    )
    distinct = "" if profile.distinct is None else f"{profile.distinct:,}"
    return (
        f"<tr><th>{html.escape(name)}</th><td>{profile.kind}</td><td>{profile.null_rate:.2%}</td>{numbers}"
        f"<td>{distinct}</td>{_bins(profile)}<td{bad}>{drift}</td><td>{_spark(profile)}</td></tr>"
    )


def _spark(profile: FeatureProfile) -> str:
    """The histogram of a number, or the shares of an id's most frequent values."""
    histogram = profile.histogram
    if histogram is not None:
        bins = zip(histogram.edges[:-1], histogram.edges[1:], histogram.shares, strict=True)
        bars = [(share, f"{low:.4g} to {high:.4g}: {share:.1%}") for low, high, share in bins]
        ends = f"{histogram.edges[0]:.3g}", f"{histogram.edges[-1]:.3g}{' (log)' if histogram.log else ''}"
    else:
        names = [*profile.distribution.values, "others"]
        bars = [
            (share, f"{text}: {share:.1%}") for text, share in zip(names, profile.distribution.shares, strict=False)
        ]
        ends = (names[0] if len(names) > 1 else "", "others")
    return _bars(bars, ends)


def _bars(bars: list[tuple[float, str]], ends: tuple[str, str]) -> str:
    tallest, width = max((share for share, _ in bars), default=1.0) or 1.0, _SPARK_WIDTH / max(len(bars), 1)
    base = _SPARK_HEIGHT - 12
    drawn = "".join(
        f'<rect class="area c0" x="{place * width:.1f}" y="{base - share / tallest * base:.1f}" '
        f'width="{width * 0.92:.1f}" height="{share / tallest * base:.1f}"><title>{html.escape(tip)}</title></rect>'
        for place, (share, tip) in enumerate(bars)
    )
    low, high = (html.escape(text if len(text) <= 14 else f"{text[:13]}…") for text in ends)  # noqa: PLR2004 - fits
    return (
        f'<svg class="spark" viewBox="0 0 {_SPARK_WIDTH} {_SPARK_HEIGHT}" role="img" aria-label="distribution">{drawn}'
        f'<text x="0" y="{_SPARK_HEIGHT - 1}">{low}</text>'
        f'<text x="{_SPARK_WIDTH}" y="{_SPARK_HEIGHT - 1}" text-anchor="end">{high}</text></svg>'
    )


def _bins(profile: FeatureProfile) -> str:
    if profile.bins is None:
        return "<td></td>"
    if profile.bins >= _FEW_BINS:
        return f"<td>{profile.bins}</td>"
    return f'<td class="bad" title="few distinct values: an id may serve better than a number">{profile.bins}</td>'
