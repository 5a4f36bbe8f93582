"""Dropout with a byte of randomness an element."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.schema import IdSpec, Schema
from models import row_share
from models.id_dropout import OWN_ID_RATE, IdDropout
from models.input_layout import layouts
from models.layers.dropout import Dropout, scaled_mask
from models.ranker_tensors import PackedIds
from models.row_share import RowShare, rows_of_batch
from tests.models.small import TASKS, small_config


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_it_drops_at_its_rate_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    dropped = Dropout(rate)(torch.ones(1000, 999))
    assert float((dropped == 0).float().mean()) == pytest.approx(rate, abs=5e-3)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=5e-3)
    assert float((dropped == 0).float().mean(dim=0).std()) < 0.03


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.floats(0.0, 1.0, exclude_max=True))
def test_any_shape_and_rate_come_back_finite(shape: list[int], rate: float) -> None:
    x = torch.ones(shape, requires_grad=True)
    dropped = Dropout(rate)(x)
    dropped.sum().backward()
    assert dropped.shape == x.shape
    assert x.grad is not None
    assert torch.equal(x.grad, dropped.detach())
    assert torch.isfinite(dropped).all()


def test_it_keeps_the_type_and_does_nothing_in_evaluation() -> None:
    x = torch.ones(7, 3, dtype=torch.bfloat16)
    assert Dropout(0.5)(x).dtype == torch.bfloat16
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.99])
def test_the_mask_is_that_of_a_product_of_floats(dtype: torch.dtype, rate: float) -> None:
    is_kept = torch.rand(40, 7) >= rate
    expected = (is_kept * (1.0 / (1.0 - rate))).to(dtype)
    assert torch.equal(scaled_mask(is_kept, 1.0 / (1.0 - rate), dtype), expected)


def test_the_same_seed_drops_the_same() -> None:
    x = torch.ones(100)
    torch.manual_seed(3)
    first = Dropout(0.3)(x)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.3)(x), first)


def id_dropout(**config: float) -> IdDropout:
    features = (
        IdSpec(name="user", kind="id", side="user", rows=100),
        IdSpec(name="tab", kind="id", side="context", rows=9),
        IdSpec(name="item", kind="id", side="item", rows=50, null_row=True, unknown_rows=3),
    )
    schema = Schema(features=features, tasks=TASKS, user_key="user", item_key="item")
    return IdDropout(schema, layouts(schema), small_config(**config))


def dropped_ids(layer: IdDropout) -> torch.Tensor:
    torch.manual_seed(0)
    ids = torch.full((3 * 20_000,), 8)
    return layer(PackedIds(ids, torch.ones(3, 20_000, dtype=torch.int64))).values_V.view(3, -1)


def test_by_default_only_the_users_and_the_items_own_ids_are_taken_for_unknown() -> None:
    user, tab, item = dropped_ids(id_dropout())
    assert float((user == 0).float().mean()) == pytest.approx(OWN_ID_RATE, abs=5e-3)
    assert set(user.tolist()) == {0, 8}
    assert set(tab.tolist()) == {8}
    assert float((item != 8).float().mean()) == pytest.approx(OWN_ID_RATE, abs=5e-3)


def test_an_id_whose_unknown_values_share_rows_trains_each_of_these() -> None:
    item = dropped_ids(id_dropout(id_dropout=0.3))[2]
    counts = item.bincount(minlength=9)
    assert counts[0] == counts[1] == 0
    torch.testing.assert_close(counts[2:5] / 20_000, torch.full((3,), 0.1), atol=0.01, rtol=0.0)


def test_a_rate_of_its_own_holds_for_tables_of_enough_rows() -> None:
    user, tab, _ = dropped_ids(id_dropout(id_dropout=0.5, id_dropout_rows=10))
    assert float((user == 0).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert set(tab.tolist()) == {8}


@pytest.mark.parametrize("least_rows", [1, 80], ids=["lists lose ids", "lists keep theirs"])
def test_ids_are_dropped_alike_on_any_number_of_ranks(least_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features = (
        IdSpec(name="user", kind="id", side="user", rows=100),
        IdSpec(name="history", kind="id_list", side="user", rows=50),
        IdSpec(name="item", kind="id", side="item", rows=90),
    )
    schema = Schema(features=features, tasks=TASKS)
    layer = IdDropout(schema, layouts(schema), small_config(id_dropout=0.5, id_dropout_rows=least_rows))
    lengths = torch.stack([torch.ones(40).long(), torch.arange(40) % 4, torch.ones(40).long()])

    def dropped(begin: int, end: int, share: RowShare | None) -> list[torch.Tensor]:
        own = lengths[:, begin:end]
        torch.manual_seed(0)
        with rows_of_batch(share):
            values = layer(PackedIds(torch.full((int(own.sum()),), 8), own)).values_V
        return list(values.split(own.sum(dim=1).tolist()))

    whole = dropped(0, 40, None)
    # Of 15 and 25 rows; the second rank's part begins with a row that counts for the first one.
    counts = torch.stack([lengths[:, :15].sum(dim=1), lengths[:, 15:].sum(dim=1)])
    for rank, share in enumerate((RowShare(0, 15, 40), RowShare(14, 40, 40, repeated=1))):
        monkeypatch.setattr(row_share, "_of_all_ranks", lambda _, rank=rank: (counts, rank))
        parts = dropped(share.first, share.last, share)
        for feature, part in enumerate(parts):
            begin = int(lengths[feature, : share.first].sum())
            assert torch.equal(part, whole[feature][begin : begin + len(part)])
