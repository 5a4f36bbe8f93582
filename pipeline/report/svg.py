"""Small plots as inline SVG: axes, lines, dots and spans, coloured by the page's style sheet.

A report is stored with every model version, so it should be kilobytes: a plotting library's script alone is 5 MB.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

Point = tuple[float, float]
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 20, 12, 40
_SMALL, _LARGE, _NOTHING = 1e-3, 10.0, 1e-6


@dataclass(frozen=True)
class Axis:
    """A range with a label and round ticks inside it."""

    low: float
    high: float
    label: str
    ticks: tuple[float, ...]
    names: tuple[str, ...] = ()
    """What the ticks are called instead of their numbers, such as days."""

    def named_ticks(self) -> list[tuple[float, str]]:
        """Each tick with its text."""
        return list(zip(self.ticks, self.names or map(tick_text, self.ticks), strict=True))

    def share(self, value: float) -> float:
        """Where a value lies between low (0) and high (1); values outside are drawn on the edge."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


def axis(values: Iterable[float], label: str, *, about: int = 5, pad: float = 0.04) -> Axis:
    """An axis that holds all finite values, with about as many ticks as asked for."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = (high - low) * pad or abs(high) * 0.1 or 1.0
    low, high = low - room, high + room
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in _STEPS if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, label, tuple(number * step for number in range(first, last + 1)))


def number(value: float) -> str:
    """Four decimals where they say something, three significant digits elsewhere."""
    if abs(value) < _NOTHING:
        return "0"
    return f"{value:.4f}" if _SMALL <= abs(value) < _LARGE else f"{value:.3g}"


def tick_text(value: float) -> str:
    """As few digits as a round number needs; steps through 0 leave rounding errors."""
    if abs(value) >= 1e5:  # noqa: PLR2004 - from here on digits say less than the power
        return f"{value:.2g}"
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"  # noqa: PLR2004 - far below any tick's distance


@dataclass
class Plot:
    """A plot under construction; `svg` returns it. Colours are the style sheet's classes."""

    x: Axis
    y: Axis
    title: str
    width: int = 340
    height: int = 270
    rows: Sequence[str] = ()
    """Names down the left side instead of y ticks; y then runs from 0 to the number of rows, downwards."""
    left: int = _LEFT
    _parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> Point:
        """Pixels of a value."""
        inner_width, inner_height = self.width - self.left - _RIGHT, self.height - _TOP - _BOTTOM
        share = self.y.share(y) if self.rows else 1.0 - self.y.share(y)
        return round(self.left + self.x.share(x) * inner_width, 1), round(_TOP + share * inner_height, 1)

    def line(self, points: Iterable[Point], css: str, title: str = "") -> None:
        """A line through points."""
        path = " ".join(f"{x},{y}" for x, y in (self.at(*point) for point in points))
        self._parts.append(f'<polyline class="{css}" points="{path}">{_tip(title)}</polyline>')

    def dot(self, point: Point, css: str, title: str = "", size: float = 3.2) -> None:
        """A dot with a tooltip."""
        x, y = self.at(*point)
        self._parts.append(f'<circle class="{css}" cx="{x}" cy="{y}" r="{size}">{_tip(title)}</circle>')

    def span(self, start: Point, end: Point, css: str, title: str = "") -> None:
        """A straight stroke such as an interval."""
        (x1, y1), (x2, y2) = self.at(*start), self.at(*end)
        self._parts.append(f'<line class="{css}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}">{_tip(title)}</line>')

    def box(self, start: Point, end: Point, css: str, title: str = "") -> None:
        """A filled rectangle between two corners, such as a bar of a histogram."""
        (x1, y1), (x2, y2) = self.at(*start), self.at(*end)
        place = f'x="{min(x1, x2)}" y="{min(y1, y2)}" width="{abs(x2 - x1):.1f}" height="{abs(y2 - y1):.1f}"'
        self._parts.append(f'<rect class="{css}" {place}>{_tip(title)}</rect>')

    def svg(self) -> str:
        """The whole plot."""
        head = f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.title)}">'
        return head + "".join([*self._grid(), *self._parts]) + "</svg>"

    def _grid(self) -> Iterable[str]:
        bottom, right = self.height - _BOTTOM, self.width - _RIGHT
        for tick, text in self.x.named_ticks():
            x, _ = self.at(tick, 0.0)
            yield f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}"/>'
            yield f'<text class="tick" x="{x}" y="{bottom + 14}" text-anchor="middle">{escape(text)}</text>'
        for tick in () if self.rows else self.y.ticks:
            _, y = self.at(0.0, tick)
            yield f'<line class="grid" x1="{self.left}" y1="{y}" x2="{right}" y2="{y}"/>'
            yield f'<text class="tick" x="{self.left - 6}" y="{y + 3.5}" text-anchor="end">{tick_text(tick)}</text>'
        for index, name in enumerate(self.rows):
            _, y = self.at(0.0, index + 0.5)
            yield f'<text class="row" x="{self.left - 10}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
        x, y = (self.left + right) / 2, self.height - 6
        yield f'<text class="label" x="{x}" y="{y}" text-anchor="middle">{escape(self.x.label)}</text>'
        if self.y.label:
            y = (_TOP + bottom) / 2
            turn = f'transform="rotate(-90 12 {y})"'
            yield f'<text class="label" x="12" y="{y}" {turn} text-anchor="middle">{escape(self.y.label)}</text>'


def _tip(title: str) -> str:
    return f"<title>{escape(title)}</title>" if title else ""
