"""Details that the catalogue holds of an item, beside its id, for answers that people are to read."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from msgspec import UNSET, UnsetType

from embeddings.catalogue.columns import Catalogue, Offers, Products
from embeddings.catalogue.tables import OFFER_KINDS
from serving.ranked import Kind

Include = Literal["attributes", "price", "products"]

MOST_PRODUCTS = 100
"""Ids of an offer's products in one item; an offer may cover ten thousand."""


class Details(NamedTuple):
    """The details of one item that were asked for and are known.

    Attributes:
        attributes: of a product those of its table, by name; of an offer its kind, window and audience.
        price: of a product.
        products: the first ``MOST_PRODUCTS`` that an offer covers, in the order of the catalogue.
        products_total: how many an offer covers.
    """

    attributes: dict[str, str] | UnsetType = UNSET
    price: float | UnsetType = UNSET
    products: list[str] | UnsetType = UNSET
    products_total: int | UnsetType = UNSET


def details_of(catalogue: Catalogue, kind: Kind, row: int, include: Collection[Include]) -> Details:
    """Return the details that the catalogue holds of a product or an offer, as far as they are included."""
    return _of_product(catalogue.products, row, include) if kind == "product" else _of_offer(catalogue, row, include)


def _of_product(products: Products, row: int, include: Collection[Include]) -> Details:
    attributes, price = products.attributes, float(products.price_N[row])
    codes = attributes.codes_NA[row].tolist()
    return Details(
        {
            name: labels[code - 1]
            for name, labels, code in zip(attributes.names, attributes.labels, codes, strict=True)
            if code > 0
        }
        if "attributes" in include
        else UNSET,
        price if "price" in include and price == price else UNSET,  # noqa: PLR0124 - not a number where unknown
    )


def _of_offer(catalogue: Catalogue, row: int, include: Collection[Include]) -> Details:
    offers, covered = catalogue.offers, catalogue.offers.products[row]
    asked = "products" in include
    return Details(
        _described(offers, catalogue.audiences, row) if "attributes" in include else UNSET,
        UNSET,
        catalogue.products.ids.ids(covered[:MOST_PRODUCTS].tolist()) if asked else UNSET,
        len(covered) if asked else UNSET,
    )


def _described(offers: Offers, audiences: tuple[str, ...], row: int) -> dict[str, str]:
    described = {
        "kind": OFFER_KINDS[offers.kinds_O[row]],
        "starts": _time(offers.starts_O[row]),
        "ends": _time(offers.ends_O[row]),
    }
    if (audience := int(offers.audiences_O[row])) >= 0:
        described["audience"] = audiences[audience]
    return described


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
