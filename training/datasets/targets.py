"""What is to be predicted: the types of events that count as purchases."""

from typing import Literal, NamedTuple

import polars as pl

from embeddings.catalogue.tables import TARGET_TYPES, TargetType
from embeddings.errors import InvalidInput
from training.datasets.frames import Dataset

_CHOSEN = ("check_in", "play", "rating")
"""Types that say as much as a purchase: where there is none, all of them together are what is predicted."""


class Targeted(NamedTuple):
    """A data set whose events of the target types are purchases, and these types."""

    dataset: Dataset
    targets: tuple[TargetType, ...]


def with_targets(dataset: Dataset, wanted: tuple[TargetType, ...] | Literal["auto"]) -> Targeted:
    """Return the data set with every event of a target type as a purchase.

    By default purchases are predicted. Where there is none, it is what customers visited or played, else what they
    rated; where there is nothing of that either, the weightiest of the types in ``TARGET_TYPES`` that there is.

    Args:
        dataset: checked.
        wanted: the types, or ``auto``.

    Raises:
        InvalidInput: no event is of a type that was named.
    """
    targets = _found(dataset) if wanted == "auto" else wanted
    if targets == ("purchase",):
        return Targeted(dataset, targets)
    if missing := [one for one in targets if one not in _held(dataset)]:
        raise InvalidInput("--recipe, targets", f"expected types of events of products, got {', '.join(missing)}")
    note = f"events of type {', '.join(targets)} are what is predicted: they count as purchases"
    return Targeted(dataset.with_targets(targets, note), targets)


def _found(dataset: Dataset) -> tuple[TargetType, ...]:
    held = _held(dataset)
    there: list[TargetType] = [one for one in TARGET_TYPES if one in held]
    if "purchase" in there or not there:
        return ("purchase",)
    chosen: list[TargetType] = [one for one in there if one in _CHOSEN]
    if len(chosen) > 1 and "rating" in chosen:  # who rates what they visited or played did not do so twice
        chosen.remove("rating")
    return tuple(chosen) or (there[0],)


def _held(dataset: Dataset) -> list[str]:
    """Return the types of the events that name a product."""
    named = dataset.events.filter(pl.col("product_id").is_not_null())
    return named.select(pl.col("type").unique()).collect()["type"].to_list()
