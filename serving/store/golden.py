"""Golden requests: encoded inputs with the answers that the exporter saw, kept in the bundle as ``golden.npz``.

Array names inside the file: ``CASE/inputs/ARRAY`` and ``CASE/answers/TASK``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from contract.errors import IntegrityError, PredictionError
from contract.graph_names import ITEM_ROWS
from contract.inputs import PARTS, Inputs, PartInputs

TOLERANCE = 1e-4
"""Largest accepted |difference|, relative to 1 + |answer|: other CPUs order float32 sums otherwise."""


@dataclass(frozen=True)
class GoldenCase:
    """One request's encoded inputs and its answers, float32 [N] by task.

    `item_rows` int64 [N], where the candidates are prepared items: the same answers come by their rows.
    """

    inputs: Inputs
    answers: Mapping[str, NDArray[np.float32]]
    item_rows: NDArray[np.int64] | None = None


def write(path: Path, cases: Mapping[str, GoldenCase]) -> None:
    """Write cases by name; names hold no ``/``."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, case in cases.items():
        arrays |= {f"{name}/inputs/{key}": value for key, value in case.inputs.arrays().items()}
        arrays |= {f"{name}/answers/{task}": value for task, value in case.answers.items()}
        arrays |= {} if case.item_rows is None else {f"{name}/inputs/{ITEM_ROWS}": case.item_rows}
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read(path: Path) -> dict[str, GoldenCase]:
    """Read all cases.

    Raises:
        IntegrityError: not such a file, or an array is missing.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        names = sorted({name.split("/", 1)[0] for name in arrays})
        return {name: _case(arrays, name) for name in names}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        message = f"{path} does not hold golden requests: {error}"
        raise IntegrityError(message) from error


def distance(case: GoldenCase, predictions: Mapping[str, NDArray[np.float32]]) -> float:
    """How far predictions [N] by task lie from those that the exporter saw at most, relative to 1 + |answer|."""
    return max(float(_off(case.answers[task], values).max(initial=0.0)) for task, values in predictions.items())


def require_golden(
    name: str, case: GoldenCase, predictions: Mapping[str, NDArray[np.float32]], tolerance: float = TOLERANCE
) -> None:
    """Compare predictions [N] by task with those that the exporter saw.

    Raises:
        PredictionError: one is further off than `tolerance`, relative to 1 + |answer|, or none was recorded for a task.
    """
    for task, values in predictions.items():
        expected = case.answers.get(task)
        if expected is None or expected.shape != values.shape:
            message = f"golden request {name} has no answers for {task} to compare with"
            raise PredictionError(message)
        off = _off(expected, values)
        if not off.max(initial=0.0) <= tolerance:
            message = f"golden request {name}: {task} is off by {off.max():.2g}, allowed is {tolerance:.2g}"
            raise PredictionError(message)


def read_raw(path: Path) -> dict[str, dict[str, Any]]:
    """The fields of raw requests by case.

    Raises:
        IntegrityError: not such a file.
    """
    try:
        requests = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): dict(request) for name, request in requests.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        message = f"{path} does not hold raw golden requests: {error}"
        raise IntegrityError(message) from error


def require_same_inputs(name: str, expected: Inputs, encoded: Inputs) -> None:
    """Compare what a raw golden request is encoded as with what training made of it.

    Raises:
        PredictionError: naming the array and the column that differ.
    """
    arrays = encoded.arrays()
    for array, values in expected.arrays().items():
        other = arrays[array]
        if values.shape != other.shape or not np.array_equal(values, other):
            column = np.argwhere(values != other)[0].tolist() if values.shape == other.shape else "its shape"
            message = f"golden request {name} is encoded otherwise than in training: {array} differs at {column}"
            raise PredictionError(message)


def _case(arrays: Mapping[str, NDArray[np.generic]], name: str) -> GoldenCase:
    request, candidate = (_part(arrays, f"{name}/inputs/{part}_") for part in PARTS)
    prefix = f"{name}/answers/"
    answers = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
    rows = arrays.get(f"{name}/inputs/{ITEM_ROWS}")
    return GoldenCase(
        Inputs(request, candidate),
        {task: value.astype(np.float32) for task, value in answers.items()},
        None if rows is None else rows.astype(np.int64),
    )


def _part(arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> PartInputs:
    return PartInputs(
        ids=arrays[f"{prefix}ids"].astype(np.int64),
        list_values=arrays[f"{prefix}list_values"].astype(np.int64),
        list_lengths=arrays[f"{prefix}list_lengths"].astype(np.int64),
        dense=arrays[f"{prefix}dense"].astype(np.float32),
    )


def _off(expected: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    off: NDArray[np.float32] = np.abs(values - expected) / (1 + np.abs(expected))
    return off
