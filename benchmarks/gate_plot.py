"""What `benchmarks.gates` found, to look at: each variant's difference to the baseline with its interval, by task."""

from collections.abc import Mapping, Sequence

from benchmarks.paired import Paired
from pipeline.report.svg import Axis, Plot, axis, number

WIDTH, ROW, COLUMNS, CAPTION = 430, 20, 2, 26
# Grey where 0 is inside the interval; both read on light and on dark pages.
STYLE = (
    "svg{font:11px system-ui,sans-serif}text{fill:#7a8494}text.caption{font-size:13px;font-weight:600}"
    ".grid{stroke:#8884;stroke-width:1}.zero{stroke:#7a8494;stroke-dasharray:4 4}"
    ".better{stroke:#1f9d6b;fill:#1f9d6b}.worse{stroke:#c93b62;fill:#c93b62}.open{stroke:#98a2b3;fill:#98a2b3}"
    "line.better,line.worse,line.open{stroke-width:2}"
)


def drawing(gaps: Mapping[str, Mapping[str, Paired]], units: Mapping[str, str], baseline: str) -> str:
    """One SVG with a panel a task: `gaps` by variant and task, `units` (auc or rmse) by task."""
    tasks = list(units)
    lines = -(-len(tasks) // COLUMNS)
    height = CAPTION + 60 + ROW * len(gaps)
    panels = []
    for place, task in enumerate(tasks):
        x, y = WIDTH * (place % COLUMNS), height * (place // COLUMNS)
        better = "right" if units[task] == "auc" else "left"
        caption = f"{task}: {units[task].upper()} less that of {baseline}; {better} is better"
        panels.append(
            f'<text class="caption" x="{x + 10}" y="{y + 16}">{caption}</text>'
            f'<svg x="{x}" y="{y + CAPTION}" width="{WIDTH}" height="{height - CAPTION}">'
            f"{_panel({name: by_task[task] for name, by_task in gaps.items()}, units[task], caption)}</svg>"
        )
    size = f'width="{WIDTH * COLUMNS}" height="{height * lines}" viewBox="0 0 {WIDTH * COLUMNS} {height * lines}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>{"".join(panels)}</svg>\n'


def _panel(by_variant: Mapping[str, Paired], unit: str, title: str) -> str:
    rows: Sequence[str] = list(by_variant)
    x = axis([0.0, *(edge for gap in by_variant.values() for edge in (gap.low, gap.high))], "")
    height = 60 + ROW * len(rows)
    plot = Plot(x, Axis(0.0, len(rows), "", ()), title, WIDTH, height, rows=rows, left=140)
    plot.span((0.0, 0.0), (0.0, len(rows)), "zero")
    for row, (name, gap) in enumerate(by_variant.items()):
        css = _css(gap, unit)
        tip = f"{name}: {number(gap.mean)} ({number(gap.low)} .. {number(gap.high)})"
        plot.span((gap.low, row + 0.5), (gap.high, row + 0.5), css, tip)
        plot.dot((gap.mean, row + 0.5), css, tip)
    return plot.svg()


def _css(gap: Paired, unit: str) -> str:
    if gap.low <= 0 <= gap.high:
        return "open"
    return "better" if (gap.mean > 0) == (unit == "auc") else "worse"
