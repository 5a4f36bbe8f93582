"""What `benchmarks.week` found, to look at: each task's figure by night, one line per arm."""

from collections.abc import Mapping, Sequence

from pipeline.report.svg import Plot, axis, number

WIDTH, HEIGHT, COLUMNS, CAPTION = 430, 290, 2, 26
LEGEND_COLUMNS, LEGEND_ROW = 3, 20
# All read on light and on dark pages.
COLOURS = ("#1f77d0", "#7fb3e6", "#1f9d6b", "#c93b62", "#e39bb0", "#98a2b3", "#d08a1f", "#7a52c7")
STYLE = (
    "svg{font:11px system-ui,sans-serif}text{fill:#7a8494}text.caption{font-size:13px;font-weight:600}"
    ".grid{stroke:#8884;stroke-width:1}polyline{fill:none;stroke-width:2}"
    + "".join(f"polyline.a{n}{{stroke:{c}}}circle.a{n},rect.a{n}{{fill:{c}}}" for n, c in enumerate(COLOURS))
)


def drawing(tasks: Mapping[str, Mapping[str, Sequence[float]]], nights: Sequence[str]) -> str:
    """One SVG with a panel a task: `tasks` by task and arm, a value a night, and the nights' names.

    Raises:
        ValueError: more arms than there are colours.
    """
    arms = list(next(iter(tasks.values())))
    if len(arms) > len(COLOURS):
        message = f"{len(arms)} arms are to be drawn, and there are {len(COLOURS)} colours: draw fewer"
        raise ValueError(message)
    legend = 8 + LEGEND_ROW * -(-len(arms) // LEGEND_COLUMNS)
    panels = [_legend(arms)]
    for place, (task, lines) in enumerate(tasks.items()):
        x, y = WIDTH * (place % COLUMNS), legend + (HEIGHT + CAPTION) * (place // COLUMNS)
        caption = f"{task}: {'RMSE, lower is better' if task == 'watch' else 'AUC, higher is better'}"
        panels.append(
            f'<text class="caption" x="{x + 10}" y="{y + 16}">{caption}</text>'
            f'<svg x="{x}" y="{y + CAPTION}" width="{WIDTH}" height="{HEIGHT}">{_panel(lines, nights, caption)}</svg>'
        )
    height = legend + (HEIGHT + CAPTION) * -(-len(tasks) // COLUMNS)
    size = f'width="{WIDTH * COLUMNS}" height="{height}" viewBox="0 0 {WIDTH * COLUMNS} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>{"".join(panels)}</svg>\n'


def _legend(arms: Sequence[str]) -> str:
    width = WIDTH * COLUMNS / LEGEND_COLUMNS
    entries = []
    for n, arm in enumerate(arms):
        x, y = 10 + width * (n % LEGEND_COLUMNS), 8 + LEGEND_ROW * (n // LEGEND_COLUMNS)
        entries.append(f'<rect class="a{n}" x="{x:g}" y="{y}" width="10" height="10"/>')
        entries.append(f'<text x="{x + 14:g}" y="{y + 9}">{arm}</text>')
    return "".join(entries)


def _panel(lines: Mapping[str, Sequence[float]], nights: Sequence[str], title: str) -> str:
    y = axis([value for line in lines.values() for value in line], "")
    x = axis([0.0, len(nights) - 1.0], f"nights from {nights[0]} to {nights[-1]}", about=len(nights))
    plot = Plot(x, y, title, WIDTH, HEIGHT)
    for place, (arm, line) in enumerate(lines.items()):
        plot.line(list(enumerate(line)), f"a{place}", arm)
        for night, value in enumerate(line):
            plot.dot((night, value), f"a{place}", f"{arm}, {nights[night]}: {number(value)}", 2.6)
    return plot.svg()
