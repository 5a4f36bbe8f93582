"""How fresh rates should be: KuaiRand with rates up to the day before, to the last whole hour, or to the row itself.

``KUAIRAND_DIR=... python -m benchmarks.fresh_rates [--as-of day hour event] [--json]``; LightGBM with ids as numbers,
on the recipe's columns, trained on 25 to 29 April and judged on 30 April and 1 May, so that nothing is chosen on the
days by which recipes are judged.
"""

import sys
from typing import get_args

from benchmarks.judged_runs import RECIPES, of_trees, rates_up_to
from benchmarks.report import Case, arguments, finish
from benchmarks.trees import absent
from features.feature_config import AsOf
from pipeline.project.project_config import ProjectConfig, read_config

_EARLIER_DAYS = [
    "data.events.until=2022-05-01",
    "data.split={by: expression, valid: date >= '2022-04-30'}",
]


def earlier_days(as_of: AsOf) -> ProjectConfig:
    """The recipe over the days before those that judge it."""
    recipe = RECIPES / "kuairand.yaml"
    return read_config(recipe, [f"workspace=runs/fresh-{as_of}", rates_up_to(as_of, recipe), *_EARLIER_DAYS])


def main() -> int:
    """Build features and grow trees for each freshness, then print the table."""
    parser = arguments(__doc__)
    known = get_args(AsOf)
    parser.add_argument("--as-of", nargs="+", default=known, choices=known, help="up to when events count (all)")
    options = parser.parse_args()
    if missing := absent():
        return finish("fresh_rates", missing, as_json=options.json)
    rows: list[Case] = []
    for as_of in options.as_of:
        found = of_trees("kuairand", earlier_days(as_of), ids_as_numbers=True)
        for name, value in found.figures.items():
            unit = name.rpartition(" ")[2]
            if unit != "ece":
                rows.append(Case(f"up to the {as_of}, {name}", value, unit, None, "lower", 1, (value, value)))
    return finish("fresh_rates", rows, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
