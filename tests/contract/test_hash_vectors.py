"""The published hashes: the code gives them, and so does the definition in docs/decisions/hashing.md."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from contract.hashing import combine, hash_array, hash_integers, hash_text

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "hash_vectors.json").read_text(encoding="utf-8")
)
ALL = 2**64 - 1


def mix(word: int) -> int:
    word = (word + 0x9E3779B97F4A7C15) & ALL
    word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & ALL
    word = ((word ^ word >> 27) * 0x94D049BB133111EB) & ALL
    return word ^ word >> 31


def hashed(value: int | str) -> int:
    if isinstance(value, int):
        return mix(value & ALL) or 1
    data = value.encode()
    words = [int.from_bytes(data[at : at + 8].ljust(8, b"\0"), "little") for at in range(0, len(data), 8)]
    return mix(sum(mix(word ^ mix(place)) for place, word in enumerate(words)) & ALL ^ mix(len(data))) or 1


@pytest.mark.parametrize("vector", VECTORS["integers"], ids=lambda vector: vector["value"])
def test_an_integer(vector: dict[str, str]) -> None:
    value = int(vector["value"])
    assert int(hash_integers(np.array([value], np.int64))[0]) == hashed(value) == int(vector["hash"], 16)


@pytest.mark.parametrize("vector", VECTORS["texts"], ids=lambda vector: vector["value"][:12])
def test_a_text(vector: dict[str, str]) -> None:
    assert hash_text(vector["value"]) == hashed(vector["value"]) == int(vector["hash"], 16)


@pytest.mark.parametrize("vector", VECTORS["combined"], ids=lambda vector: str(vector["parts"]))
def test_a_tuple(vector: dict[str, Any]) -> None:
    first, *others = vector["parts"]
    plain = hashed(first)
    for part in others:
        plain = mix((plain * 31 + hashed(part)) & ALL)
    columns = [hash_array(pa.array([part])) for part in vector["parts"]]
    assert int(combine(columns)[0]) == plain == int(vector["hash"], 16)
