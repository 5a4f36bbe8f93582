"""Writes docs/configuration.md, every key of a project's YAML file, and the JSON Schema from the settings themselves.

``python -m pipeline.project.reference`` (what ``make docs`` runs) prints what changed.
"""

import difflib
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contract.files import write_text
from features.source.functions import FUNCTIONS
from pipeline.project.project_config import ProjectConfig

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
SCHEMA = Path(__file__).with_name("moerank.schema.json")
"""The JSON Schema for editors as a file: to make it takes seconds of imports."""
Node = Mapping[str, Any]
INTRODUCTION = """\
# The keys of a project's YAML file

Made from the code by `make docs`; do not edit. `moerank config-schema` prints the same as a JSON Schema, which editors
take for completion and checks.

- A key that is not listed here, or a value that is not allowed, ends the command with a message that names it.
- `${NAME}` in a value takes the environment variable NAME, `${NAME:-text}` has a default, `$$` is a dollar sign.
- `--set model.experts=4` on the command line wins over the file.
- Paths are relative to the current directory.
- Labels, masks, splits and derived columns are expressions on columns: numbers, strings, `true`, `false`, `+ - * /`,
  comparisons, `and`, `or`, `not`, `in [..]`, and functions:
FUNCTIONS.
  They are parsed and translated to the engine's own query; nothing in the file is executed.
"""


def page() -> str:
    """The whole page as Markdown."""
    schema = ProjectConfig.model_json_schema()
    # By identity: two packages may each have a block of the same name.
    places: dict[int, tuple[Node, list[str]]] = {}
    for path, node in _blocks("", schema, schema):
        _, paths = places.setdefault(id(node), (node, []))
        paths += [path] if path not in paths else []
    functions = textwrap.indent(textwrap.fill(", ".join(f"`{name}`" for name in FUNCTIONS), 118), "  ")
    sections = [_section(paths, node, schema) for node, paths in places.values()]
    return "\n".join([INTRODUCTION.replace("FUNCTIONS", functions), *sections])


def _blocks(path: str, node: Node, schema: Node) -> Iterator[tuple[str, Node]]:
    """A block and those below it, in the order of the file, by dotted path; ``[]`` marks a list, ``NAME`` any key."""
    yield path, node
    # What stands below every member of a union, such as a gate's regularisers, is told once for all.
    place = path.partition(" (")[0]
    for name, value in node["properties"].items():
        for suffix, inner in _inner(value, schema):
            yield from _blocks(f"{place}.{name}{suffix}".removeprefix("."), inner, schema)


def _inner(value: Node, schema: Node) -> Iterator[tuple[str, Node]]:
    """The blocks that a value may be, each with what the path adds."""
    if "items" in value:
        yield from ((f"[]{suffix}", node) for suffix, node in _inner(value["items"], schema))
    if isinstance(value.get("additionalProperties"), dict):
        yield from ((f".NAME{suffix}", node) for suffix, node in _inner(value["additionalProperties"], schema))
    for member in value.get("oneOf", value.get("anyOf", ())):
        for suffix, node in _inner(member, schema):
            yield suffix + _tag(node, value), node
    if "$ref" in value and "properties" in _resolve(value, schema):
        yield "", _resolve(value, schema)


def _resolve(value: Node, schema: Node) -> Node:
    definition: Node = schema["$defs"][str(value["$ref"]).rpartition("/")[2]]
    return definition


def _tag(node: Node, union: Node) -> str:
    """What tells the members of a union apart, such as `` (name: top_k)``."""
    key = union.get("discriminator", {}).get("propertyName")
    return f" ({key}: {node['properties'][key]['const']})" if key else ""


def _section(paths: Sequence[str], node: Node, schema: Node) -> str:
    required = set(node.get("required", ()))
    rows = [
        f"| `{name}` | {_kind(value, schema)} | {_default(value, required=name in required)} | {_told(value)} |"
        for name, value in node["properties"].items()
    ]
    text = node.get("description", "").replace("``", "`")
    title = f"## {', '.join(paths)}" if any(paths) else "## The file"
    return "\n".join([title, "", text, "", "| key | value | default | |", "|---|---|---|---|", *rows, ""])


def _kind(value: Node, schema: Node) -> str:
    """What a value may be, in words."""
    members = value.get("anyOf", value.get("oneOf", ()))
    if "$ref" in value:
        resolved = _resolve(value, schema)
        return "a block, below" if "properties" in resolved else _kind(resolved, schema)
    if "discriminator" in value:
        return "one of the blocks below"
    if members:
        return " or ".join(dict.fromkeys(_kind(member, schema) for member in members))
    if "prefixItems" in value:
        return f"list of {len(value['prefixItems'])}: {', '.join(_kind(item, schema) for item in value['prefixItems'])}"
    if value.get("type") == "array":
        return f"list of: {_kind(value['items'], schema)}"
    return _plain(value, schema)


def _plain(value: Node, schema: Node) -> str:
    if value.get("type") == "object":
        return f"mapping to: {_kind(value['additionalProperties'], schema)}"
    allowed = [value["const"]] if "const" in value else value.get("enum", ())
    if allowed:
        return ", ".join(f"`{item}`" for item in allowed)
    return _NAMES[value["type"]] + _bounds(value) if "type" in value else "any value"


_NAMES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
_BOUNDS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "multipleOf": "a multiple of",
}


def _bounds(value: Node) -> str:
    bounds = [f"{sign} {value[key]:g}" for key, sign in _BOUNDS.items() if key in value]
    if "pattern" in value:
        bounds.append(f"matching `{value['pattern']}`".replace("|", "\\|"))
    return f" {', '.join(bounds)}" if bounds else ""


def _default(value: Node, *, required: bool) -> str:
    if required:
        return "**required**"
    if isinstance(value.get("default"), dict) and value["default"]:
        return f"`{{name: {value['default']['name']}}}`" if "name" in value["default"] else "its defaults"
    return f"`{json.dumps(value['default'])}`" if "default" in value else "its defaults"


def _told(value: Node) -> str:
    return re.sub(r"\s+", " ", value.get("description", "")).replace("``", "`").replace("|", "\\|")


def schema_text() -> str:
    """The JSON Schema of a project's file."""
    return json.dumps(ProjectConfig.model_json_schema(), indent=1) + "\n"


def main() -> None:
    """Rewrite the page and the schema, and print the page's difference."""
    write_text(schema_text(), SCHEMA)
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    after = page()
    write_text(after, PAGE)
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="", n=0)
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
