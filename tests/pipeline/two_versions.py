"""A project whose store has two versions of one features build, over six days of a raw log."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from contract.schema import Schema
from features.batches import BatchReader
from features.build import build
from features.recipe_files import save_recipe
from models.export import export
from pipeline.evaluation.measure import EvaluateConfig
from pipeline.project.project_config import ProjectConfig
from serving.store.bundle import publish
from serving.store.pointer_history import HISTORY_FILE, PointerChange
from tests.features.raw_world import quiet, raw_tables, recipe, write_raw
from tests.models.small import lively_ranker, small_config

FIRST, LAST = date(2024, 3, 1), date(2024, 3, 6)
NOON = datetime(2024, 3, 6, 12, tzinfo=UTC)


@dataclass(frozen=True)
class TwoVersions:
    """The project, and where its raw tables lie."""

    config: ProjectConfig
    folder: Path

    def version(self, number: int) -> Path:
        """A version's bundle."""
        return self.config.store / "shop" / str(number)

    def served(self, *changes: tuple[int, datetime]) -> None:
        """Say which version became current when."""
        lines = [
            PointerChange(version=version, since_ms=int(since.timestamp() * 1000)).model_dump_json()
            for version, since in changes
        ]
        (self.config.store / "shop" / HISTORY_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_two_versions(folder: Path) -> TwoVersions:
    """Publish two models; version 2 was current from noon of the last day on, version 1 before."""
    write_raw(folder, raw_tables(rows=1500))
    data = recipe(folder, split={"by": "expression", "valid": "day >= 4"})
    config = ProjectConfig(
        name="shop",
        workspace=folder / "runs",
        data=data,
        evaluate=EvaluateConfig(replicates=100, slice_replicates=60, trees=False),
    )
    build(data, config.features_dir, quiet)
    schema = Schema.load(config.features_dir)
    sample = next(BatchReader(config.features_dir / "valid", schema, 64).epoch()).inputs
    for seed in (1, 2):
        made = folder / f"made{seed}"
        made.mkdir()
        ranker = lively_ranker(schema, small_config(gate={"name": "softmax"}), seed=seed)
        export(ranker, schema, sample, made / "model.onnx")
        schema.save(made)
        save_recipe(data, config.features_dir, made)
        facts = {"schema_fingerprint": schema.fingerprint(), "tasks": ["like", "watch"]}
        publish(config.store, "shop", {path.name: path for path in made.iterdir()}, facts)
    world = TwoVersions(config, folder)
    world.served((1, datetime(2024, 1, 1, tzinfo=UTC)), (2, NOON))
    return world
