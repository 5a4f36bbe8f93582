"""The page of all settings is the one that the settings make."""

from pipeline.project.project_config import ProjectConfig
from pipeline.project.reference import PAGE, SCHEMA, page, schema_text


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "the settings changed: run `make docs`"


def test_the_schema_for_editors_is_current() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "the settings changed: run `make docs`"


def test_every_block_of_the_settings_has_its_chapter_once() -> None:
    schema = ProjectConfig.model_json_schema()
    blocks = [node for node in schema["$defs"].values() if "properties" in node]
    headings = [line for line in page().splitlines() if line.startswith("## ")]
    assert len(headings) == len(blocks) + 1 == len(set(headings))


def test_a_key_is_told_with_its_values_default_and_meaning() -> None:
    text = page()
    assert '| `duplicates` | `keep`, `first`, `refuse` | `"keep"` |' in text
    assert '| `time_zone` | text | `"UTC"` | Where a day begins' in text
    assert "## model.gate (name: top_k)" in text


def test_every_key_says_what_it_is_for() -> None:
    schema = ProjectConfig.model_json_schema()
    keys = {
        f"{block}.{key}": value
        for block, node in {"project": schema, **schema["$defs"]}.items()
        for key, value in node.get("properties", {}).items()
    }
    assert [name for name, value in keys.items() if not value.get("description") and "const" not in value] == []
