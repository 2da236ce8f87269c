"""Filters of a request: which products are wanted, by their attributes and their price.

Letter: N products.
"""

from collections.abc import Mapping
from typing import Annotated, TypeAlias

import numpy as np
from msgspec import Meta, Struct, field
from numpy.typing import NDArray

from embeddings.catalogue.columns import Products
from embeddings.catalogue.context import Identifier
from embeddings.errors import InvalidInput

PRICE = "price"
"""What filters by a span of prices, where all other names are attributes."""


class PriceRange(Struct, frozen=True, forbid_unknown_fields=True):
    """A span of prices, both ends included; None where there is no end."""

    least: Annotated[float, Meta(ge=0)] | None = field(name="min", default=None)
    most: Annotated[float, Meta(ge=0)] | None = field(name="max", default=None)


Values: TypeAlias = Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(min_length=1, max_length=1_000)]
Filters: TypeAlias = Annotated[dict[Identifier, Values | PriceRange], Meta(max_length=100)]


def key_of(filters: Mapping[str, tuple[str, ...] | PriceRange]) -> tuple[object, ...]:
    """Return a key that is the same for filters that mean the same."""
    return tuple(
        (name, (wanted.least, wanted.most) if isinstance(wanted, PriceRange) else tuple(sorted(set(wanted))))
        for name, wanted in sorted(filters.items())
    )


def matching(products: Products, filters: Mapping[str, tuple[str, ...] | PriceRange]) -> NDArray[np.int32]:
    """Return the rows, ascending, of the products that every filter wants.

    A product whose price or attribute is unknown is not wanted by a filter of it. A value that no product has is had by
    none.

    Raises:
        InvalidInput: there is no such attribute, or a filter is not of the kind that its name needs.
    """
    wanted_N = np.ones(len(products.ids), np.bool_)
    for name, wanted in filters.items():
        path = f"filters.{name}"
        if name == PRICE:
            if not isinstance(wanted, PriceRange):
                raise InvalidInput(path, 'expected a span such as {"min": 1, "max": 5}')
            wanted_N &= _priced(products, wanted, path)
            continue
        if name not in products.attributes.names:
            known = ", ".join([*products.attributes.names, PRICE])
            raise InvalidInput(path, f"expected one of {known}: products have no other attributes")
        if isinstance(wanted, PriceRange):
            raise InvalidInput(path, 'expected a list of values such as ["DAIRY"]')
        wanted_N &= _having(products, name, wanted)
    return np.flatnonzero(wanted_N).astype(np.int32)


def _priced(products: Products, wanted: PriceRange, path: str) -> NDArray[np.bool_]:
    if wanted.least is not None and wanted.most is not None and wanted.least > wanted.most:
        raise InvalidInput(f"{path}.max", f"expected at least min, {wanted.least:g}; got {wanted.most:g}")
    price_N = products.price_N
    # A price that is not known is no number, which compares with none.
    known_N = np.isfinite(price_N)
    if wanted.least is not None:
        known_N &= price_N >= wanted.least
    if wanted.most is not None:
        known_N &= price_N <= wanted.most
    return known_N


def _having(products: Products, name: str, values: tuple[str, ...]) -> NDArray[np.bool_]:
    place = products.attributes.names.index(name)
    labels = products.attributes.labels[place]
    wanted = set(values)
    wanted_V = np.array([False, *(label in wanted for label in labels)])
    return wanted_V[products.attributes.codes_NA[:, place]]
