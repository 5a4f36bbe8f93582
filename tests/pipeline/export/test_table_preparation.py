"""The manifest calls no table prepared that lies in no bundle."""

from pipeline.export.prepare import TablePreparation, beside_items

PAIR = TablePreparation(20, 512, 8, 6400, prepared=True, reason="6400 multiplications saved")


def test_pairs_are_prepared_beside_items_alone() -> None:
    item = TablePreparation(10, 512, 46, 25600, prepared=False, reason="not worth it")
    told = beside_items({"item": item, "pair_0": PAIR})
    assert told["item"] == item
    assert not told["pair_0"].prepared
    assert told["pair_0"].reason == "only beside rows of items, which are not prepared"


def test_pairs_beside_items_stay_prepared() -> None:
    item = TablePreparation(10, 512, 46, 64000, prepared=True, reason="64000 multiplications saved")
    assert beside_items({"item": item, "pair_0": PAIR})["pair_0"] == PAIR
