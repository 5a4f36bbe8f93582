"""Ids of 64 unsigned bits: trained by their bits, and asked for as they are."""

import numpy as np
import pyarrow as pa
import pytest

from contract.errors import RequestError
from contract.hashing import hash_array
from features.online.request_values import id_hashes, typed_lists
from serving.client.client_request import value

WIDE = [2**63, 2**63 + 1000, 2**64 - 1]


@pytest.mark.parametrize("more", [[], [3, None], [1] * 20])
def test_a_request_names_an_id_beyond_the_signed_ones(more: list[int | None]) -> None:
    trained = hash_array(pa.array([*WIDE, *more], pa.uint64()))
    assert np.array_equal(id_hashes([*WIDE, *more], "integer", "items"), trained)


def test_lists_hold_them_too() -> None:
    assert np.array_equal(
        hash_array(typed_lists([WIDE], "integer", "x").flatten()), hash_array(pa.array(WIDE, pa.uint64()))
    )


def test_the_client_sends_them_by_their_bits() -> None:
    assert value("items", 2**64 - 1).integer == -1


def test_what_no_64_bits_hold_is_refused() -> None:
    for call in (lambda: id_hashes([2**64], "integer", "items"), lambda: value("items", 2**64)):
        with pytest.raises(RequestError, match="items"):
            call()
