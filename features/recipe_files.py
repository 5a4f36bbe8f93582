"""The recipe of a bundle and what its build fitted, as files beside the schema."""

import shutil
from pathlib import Path

from contract.files import write_text
from contract.graph_names import PRIORS_FILE, RECIPE_FILE
from features.encode.trained_rows import TrainedRows
from features.encode.vocabulary import VOCABULARY_FILE
from features.feature_config import FeaturesConfig


def save_recipe(config: FeaturesConfig, features: Path, out: Path) -> None:
    """Put the recipe and what its build in `features` fitted beside the schema in `out`.

    `features.encode_days.FittedRecipe` reads them.
    """
    write_text(config.model_dump_json(indent=1) + "\n", out / RECIPE_FILE)
    trained = TrainedRows.of_build(features)
    if trained is not None:
        trained.save(out)
    for name in (VOCABULARY_FILE, PRIORS_FILE):
        shutil.copyfile(features / name, out / name)
