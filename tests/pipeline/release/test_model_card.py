"""What the model card says of the network."""

from pipeline.release.model_card import network_in_words
from tests.models.small import small_config


def test_the_card_tells_of_members() -> None:
    one = "4 experts in the architecture `mmoe` with the gate `dselect_k`"
    assert network_in_words(small_config()) == one
    assert network_in_words(small_config(members=3)) == f"3 members, each of {one}"
