"""Figures that were measured once, kept in a file of JSON lines, so that an interrupted benchmark goes on."""

import json
from collections.abc import Callable
from pathlib import Path

Figures = dict[str, float]


class Ledger:
    """Figures by a text of all that they depend on."""

    def __init__(self, path: Path) -> None:
        """Read what was measured before."""
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.known: dict[str, Figures] = {entry["key"]: entry["figures"] for entry in map(json.loads, lines)}

    def figures(self, key: str, measure: Callable[[], Figures]) -> Figures:
        """Look figures up, or measure them and write them down."""
        if key not in self.known:
            self.keep(key, measure())
        return self.known[key]

    def keep(self, key: str, figures: Figures) -> None:
        """Write figures down."""
        self.known[key] = figures
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"key": key, "figures": figures}) + "\n")
