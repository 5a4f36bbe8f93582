"""What all pages share: the templates, the style, and that they refer to nothing outside themselves."""

import functools
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from contract.files import write_text
from features.quality.quality_page import STYLE
from pipeline.evaluation.slice_tests import named_few
from pipeline.report.svg import number


@functools.cache
def environment() -> Environment:
    """The templates, each compiled once per process; every value is escaped, and a name not given is an error."""
    made = Environment(
        loader=PackageLoader("pipeline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
    )
    made.filters["number"] = number
    made.filters["few"] = named_few
    return made


def render_page(template: str, **values: object) -> str:
    """A template's page."""
    style = files("features.quality").joinpath(STYLE).read_text(encoding="utf-8")
    return environment().get_template(template).render(style=style, **values)


def write_page(path: Path, template: str, **values: object) -> Path:
    """Render a page into a file in one step, and return its path."""
    write_text(render_page(template, **values), path)
    return path
