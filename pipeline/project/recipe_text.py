"""Write parts of a recipe as YAML that a person reads."""

import re
from collections.abc import Iterable, Mapping, Sequence

import yaml

from pipeline.project.guess_features import GuessedFeature

_WIDTH = 100
"""A line that is read without scrolling."""


def flow(value: object) -> str:
    """A value as it stands in YAML's flow style; texts with quotes only where they need them.

    Example:
        >>> flow("price_eur"), flow("`price (EUR)` * 100"), flow("no"), flow({"unit": "ms"}), flow("a: b, c")
        ('price_eur', "'`price (EUR)` * 100'", "'no'", '{unit: ms}', "'a: b, c'")
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Iterable):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return str(value)


def _text(text: str) -> str:
    """A text; a dollar stands for itself only when it is doubled."""
    text = text.replace("$", "$$")
    plain = re.fullmatch(r"[\w./][\w./() -]*", text) is not None and not text.endswith(" ")
    if plain and yaml.safe_load(text) == text:
        return text
    if re.search(r"[\x00-\x1f\x7f-\x9f]", text):
        return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'
    return "'" + text.replace("'", "''") + "'"


def feature_lines(features: Sequence[GuessedFeature]) -> list[str]:
    """The list of features, several on a line."""
    lines, line = [], ""
    for feature in features:
        text = _feature(feature)
        if line and len(line) + len(text) > _WIDTH:
            lines.append(f"     {line}")
            line = ""
        line += f" {text}," if line else f"{text},"
    first, *rest = [*lines, f"     {line}"]
    body = [f"    [{first.strip()}", *rest]
    return [*body[:-1], body[-1].removesuffix(",") + "]"]


def _feature(feature: GuessedFeature) -> str:
    parts: dict[str, object] = {"name": feature.name}
    if feature.kind != "id":
        parts["kind"] = feature.kind
    return flow(parts | dict(feature.options))
