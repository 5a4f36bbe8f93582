"""Reads a YAML file into settings: `${ENV}` filled in, and every wrong key or value reported with its path.

Nothing in the file is ever evaluated: values are text, numbers, lists and mappings.
"""

import difflib
import os
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from contract.errors import ConfigError
from contract.settings import Settings

SettingsT = TypeVar("SettingsT", bound=Settings)
Location = tuple[int | str, ...]

# ${NAME}, ${NAME:-default}; a doubled dollar stands for itself.
_VARIABLE = re.compile(r"\$(?P<escape>\$)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")

_STAND_IN = "\ue000"
"""Stands around a variable's number while YAML is parsed; it is of no use in any text."""


class Workspace(Settings):
    """The one setting that is needed before the others are read: where all that is made goes."""

    model_config = ConfigDict(extra="ignore")

    workspace: Path = Path("runs")
    """The directory of all results."""


class _Loader(yaml.SafeLoader):
    """YAML without Python tags, where a key given twice is an error instead of a silent choice.

    Of the words that YAML 1.1 takes for booleans only true and false are: ``off`` and ``no`` stay what they say, and
    settings that are booleans take them, too.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_BOOLEAN = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read_settings(
    path: Path,
    into: type[SettingsT],
    *,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> SettingsT:
    """Read `path` into settings of the class `into`.

    `overrides` are ``key.path=value`` texts, the value written as in YAML; they win over the file.

    Raises:
        ConfigError: no such file, no YAML, an unset variable, or keys or values that are not allowed; all wrong keys
            and values are reported at once, each with its path, the value seen and what is allowed.
    """
    filled = read_tree(path, overrides=overrides, environment=environment)
    try:
        return into.model_validate(filled)
    except ValidationError as error:
        schema = into.model_json_schema()
        problems = "\n".join(f"  {_describe(problem, schema)}" for problem in error.errors(include_url=False))
        message = f"{path} cannot be used:\n{problems}"
        raise ConfigError(message) from error


def read_tree(
    path: Path, *, overrides: Sequence[str] = (), environment: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """What a file says with its variables and `overrides`, whatever its keys.

    Raises:
        ConfigError: no such file, no YAML, or an unset variable.
    """
    tree = _parse(path)
    for override in overrides:
        _apply(tree, override)
    filled: dict[str, Any] = _fill(tree, environment, str(path), ())
    return filled


def _parse(path: Path) -> dict[str, Any]:
    try:
        tree = _load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"there is no file {path} (relative paths start at {Path.cwd()})"
        raise ConfigError(message) from error
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read: {error}"
        raise ConfigError(message) from error
    except yaml.YAMLError as error:
        message = f"{path} is not valid YAML: {_where(error)}"
        raise ConfigError(message) from error
    if not isinstance(tree, dict):
        message = f"{path} must hold a mapping of keys, such as `name: films`; it holds {_shown(tree)}"
        raise ConfigError(message)
    return tree


def _load(text: str) -> Any:
    """Parse a file; variables have a form in which their braces are not a flow mapping."""
    variables: list[str] = []

    def stand_in(match: re.Match[str]) -> str:
        if match["escape"]:
            return match[0]
        variables.append(match[0])
        return f"{_STAND_IN}{len(variables) - 1}{_STAND_IN}"

    return _restored(yaml.load(_VARIABLE.sub(stand_in, text), Loader=_Loader), variables)  # noqa: S506 - a SafeLoader


def _restored(value: Any, variables: Sequence[str]) -> Any:
    """The tree with its variables as they were written."""
    if isinstance(value, dict):
        return {_restored(key, variables): _restored(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item, variables) for item in value]
    if not isinstance(value, str):
        return value
    return re.sub(f"{_STAND_IN}([0-9]+){_STAND_IN}", lambda match: variables[int(match[1])], value)


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark else problem


def _apply(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.split(".")
    if not equals or not all(keys):
        message = f"{override!r} is not a setting: write KEY.PATH=VALUE, such as train.epochs=2"
        raise ConfigError(message)
    for key in keys[:-1]:
        # Setting below a value that is not a mapping replaces it; validation then judges the result.
        tree[key] = tree[key] if isinstance(tree.get(key), dict) else {}
        tree = tree[key]
    try:
        tree[keys[-1]] = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        message = f"the value of {override!r} is not valid YAML: {_where(error)}"
        raise ConfigError(message) from error


def _fill(value: Any, environment: Mapping[str, str], file: str, path: Location) -> Any:
    """The tree with variables replaced in every text; a text stays a text, settings convert it."""
    if isinstance(value, dict):
        return {key: _fill(item, environment, file, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, environment, file, (*path, index)) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match["escape"]:
            return "$"
        value = environment.get(match["name"]) or match["default"]
        if value is None:
            name = match["name"]
            message = (
                f"{file}: {_dotted(path)} uses ${{{name}}}, but the environment variable {name} is not set or empty; "
                f"set it (export {name}=...) or give a default in the file: ${{{name}:-value}}"
            )
            raise ConfigError(message)
        return value

    return _VARIABLE.sub(replace, value)


def _describe(problem: ErrorDetails, schema: dict[str, Any]) -> str:
    """One problem as: path, what is wrong, the value seen, what is allowed."""
    owner, path = _walk(schema, problem["loc"])
    where = _dotted(path) or "the file"
    if problem["type"] == "extra_forbidden":
        key, allowed = str(path[-1]), sorted(_properties(owner, schema))
        near = difflib.get_close_matches(key, allowed, n=1)
        hint = f"; did you mean {near[0]!r}" if near else ""
        seen = _shown(problem["input"])
        return f"{where}: no such key (value {seen}){hint}; allowed are {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"{where}: this key is required"
    text = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {text} (found {_shown(problem['input'])})"


def _walk(schema: dict[str, Any], location: Location) -> tuple[dict[str, Any], Location]:
    """Follow pydantic's location through the JSON Schema.

    Returns:
        The schema node that holds the location's last step, and the location without the steps that pydantic adds to
        name a member of a union.
    """
    node, owner, path = schema, schema, []
    for step in location:
        node = _resolve(node, schema)
        if isinstance(step, int):
            owner, node = node, node.get("items", {})
        elif step in _properties(node, schema):
            owner, node = node, _properties(node, schema)[step]
        elif (tagged := _tagged(node, step)) is not None:
            node = tagged
            continue
        else:
            owner, node = node, _additional(node)
        path.append(step)
    return owner, tuple(path)


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][str(node["$ref"]).rpartition("/")[2]]
    return node


def _members(node: dict[str, Any], schema: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The object schemas that a node may be: itself, or the members of its union."""
    node = _resolve(node, schema)
    for member in node.get("anyOf", node.get("oneOf", [])):
        yield from _members(member, schema)
    if "properties" in node or "additionalProperties" in node:
        yield node


def _properties(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return {name: item for member in _members(node, schema) for name, item in member.get("properties", {}).items()}


def _tagged(node: dict[str, Any], tag: str) -> dict[str, Any] | None:
    """The member of a discriminated union that a tag names."""
    for candidate in (node, *node.get("anyOf", [])):
        reference = candidate.get("discriminator", {}).get("mapping", {}).get(tag)
        if reference is not None:
            return {"$ref": reference}
    return None


def _additional(node: dict[str, Any]) -> dict[str, Any]:
    extra = node.get("additionalProperties", {})
    return extra if isinstance(extra, dict) else {}


def _dotted(path: Location) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _shown(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
