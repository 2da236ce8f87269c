"""Types of events that count as purchases."""

import polars as pl
import pytest

from embeddings.catalogue.tables import TargetType
from embeddings.errors import InvalidInput
from tests.world import UNTIL, dataset_of, tables
from training.datasets import Dataset, as_of
from training.datasets.frames import as_given
from training.datasets.targets import with_targets


def world_of(*types: str) -> Dataset:
    """The small world, whose events are of these types by turns."""
    frames = tables()
    turn = pl.int_range(pl.len()) % len(types)
    kinds = pl.when(turn == 0).then(pl.lit(types[0]))
    for number, kind in enumerate(types[1:], start=1):
        kinds = kinds.when(turn == number).then(pl.lit(kind))
    frames["events"] = frames["events"].with_columns(type=kinds)
    return dataset_of(frames)


def purchases(dataset: Dataset) -> int:
    return dataset.events.filter(pl.col("type") == "purchase").collect().height


@pytest.mark.parametrize(
    ("types", "targets"),
    [
        (("purchase", "view", "play"), ("purchase",)),
        (("view", "rating", "play"), ("play",)),
        (("view", "rating"), ("rating",)),
        (("check_in", "rating", "play"), ("check_in", "play")),
        (("view", "check_in"), ("check_in",)),
        (("view", "click", "impression"), ("click",)),
        (("view", "impression"), ("view",)),
        (("view", "add_to_cart", "click"), ("add_to_cart",)),
        (("impression",), ("purchase",)),
    ],
)
def test_by_default_the_weightiest_of_what_there_is_is_predicted(types: tuple[str, ...], targets: tuple[str, ...]):
    dataset = world_of(*types)
    found, chosen = with_targets(dataset, "auto")
    assert chosen == targets
    expected = dataset.events.filter(pl.col("type").is_in([*targets])).collect().height
    assert purchases(found) == expected
    assert (found.notes != dataset.notes) == (targets != ("purchase",))


@pytest.mark.parametrize("wanted", [("view",), ("purchase", "view")])
def test_named_types_count_beside_purchases_also_once_tables_are_read_again(wanted: tuple[TargetType, ...]):
    dataset = world_of("purchase", "view", "click", "impression")
    found, chosen = with_targets(dataset, wanted)
    assert chosen == wanted
    both = dataset.events.filter(pl.col("type").is_in(["purchase", "view"])).collect().height
    assert purchases(found) == both
    assert purchases(as_of(found, UNTIL)) == both
    given = as_given(dataset).events.filter(pl.col("type").is_in(["purchase", "view"])).collect().height
    assert purchases(as_given(found)) == given > both
    assert set(found.events.collect()["type"]) == {"purchase", "click", "impression"}


def test_a_type_that_no_event_has_is_refused():
    with pytest.raises(InvalidInput, match=r"targets.*expected types of events of products, got play, rating"):
        with_targets(world_of("purchase", "view"), ("play", "view", "rating"))
