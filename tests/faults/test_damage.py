"""Damage to a published bundle is never served."""

import logging
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.errors import MoerankError
from serving.graph.engine import Engine
from serving.registry.registry import Registry
from serving.store.bundle import load
from tests.faults.conftest import Rounds, seeded
from tests.tiny_bundle import publish_tiny


def flip(file: Path, dice: random.Random) -> Callable[[], None]:
    """Flip one random bit; what is returned undoes that."""
    content = file.read_bytes()
    place = dice.randrange(len(content))
    damaged = bytes([content[place] ^ (1 << dice.randrange(8))])
    file.write_bytes(content[:place] + damaged + content[place + 1 :])

    def mend() -> None:
        file.write_bytes(content)

    return mend


def test_every_flipped_bit_in_any_file_is_refused(store: Path, rounds: type[Rounds]) -> None:
    dice = seeded()
    bundle = store / "tiny" / "1"
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    for _ in range(rounds.of(400, 4000)):
        mend = flip(dice.choice(files), dice)
        with pytest.raises(MoerankError):
            load(bundle)
        mend()
    load(bundle)


def test_control_without_verification_most_flips_of_the_graph_load(store: Path) -> None:
    dice = seeded()
    graph = store / "tiny" / "1" / "model.onnx"
    loaded = 0
    for _ in range(40):
        mend = flip(graph, dice)
        try:
            Engine(graph.parent)
            loaded += 1
        except MoerankError:
            pass
        mend()
    assert loaded > 10


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "other schema"])
def test_the_last_good_version_serves_on_after_damage_to_the_next(
    store: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "moerank.registry")
    registry = Registry(store)
    second = publish_tiny(store, tmp_path / "two", seed=1)
    schema = second / "schema.json"
    if damage == "flipped":
        flip(second / "model.onnx", seeded())
    elif damage == "truncated":
        (second / "golden.npz").write_bytes((second / "golden.npz").read_bytes()[:-1])
    elif damage == "missing":
        (second / "online" / "item" / "ids.npy").unlink()
    else:
        schema.write_text(schema.read_text().replace('"stars"', '"moons"'))
    assert not registry.refresh()
    assert registry.get().version == 1
    publish_tiny(store, tmp_path / "three", seed=1)
    assert registry.refresh()
    assert registry.get().version == 3
