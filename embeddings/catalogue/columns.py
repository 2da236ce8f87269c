"""Master data as columns: products, locations, offers and the promotion plan; what can be recommended, and where.

What was observed of them, such as how much is bought, lies with the statistics of a release: see `ranking.observed`.

Letters in array names: N products, M locations, O offers, G promotion groups, A attributes.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Array, Ragged, load_arrays, save_arrays
from embeddings.catalogue.changes import PlacementState
from embeddings.catalogue.tables import TargetType
from embeddings.errors import InvalidInput
from embeddings.vocabulary import Vocabulary


class ChannelRule(StrEnum):
    """Which products a channel may show."""

    EVERYTHING = "everything"  # the whole catalogue
    ASSORTMENT = "assortment"  # what the location carries
    PROMOTED = "promoted"  # what the location promotes on that channel at that moment


class Attributes(NamedTuple):
    """Categorical attributes as codes; code 0 means unknown, code ``i`` stands for ``labels[a][i - 1]``."""

    names: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    codes_NA: NDArray[np.int32]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the number of codes of each attribute, including the code for unknown."""
        return tuple(len(labels) + 1 for labels in self.labels)


class Products(NamedTuple):
    """All products, one row each.

    Attributes:
        price_N: float64, as the table says; NaN where unknown.
        recommendable_N: bool, whether it is ever shown; a product that is not may be bought, and tells about its buyer.
    """

    ids: Vocabulary
    attributes: Attributes
    price_N: NDArray[np.float64]
    recommendable_N: NDArray[np.bool_]


DECLARED, SOLD, ASSUMED = 1, 2, 4
"""Why a location is taken to carry a product, as bits: its table says so, it was bought there, or comparable locations
carry it and nothing else is known of this one."""


class Locations(NamedTuple):
    """Every store, branch or place.

    Attributes:
        coordinates_M2: float64, latitude and longitude in degrees, NaN where unknown.
        regions: the names of the regions, in the order of their codes from 1.
        regions_M: int32 code of the region, 0 for unknown; locations of one region are comparable.
        assortment: the product rows each location carries, ascending.
        why_L: uint8, aligned with ``assortment.values``: why it carries each.
        assumed: the product rows that a location carries of which nothing is known, by the code of its region.
        withdrawn_M: bool, whether it is closed for good.
        unavailable: the product rows that each location does not show, though it may carry them: they are out of stock
            or withdrawn there.
        time_zones: the IANA's names of the time zones of the locations of which they are known, by row. Like all that
            the models do not read, they come with changes and not with a release.
    """

    ids: Vocabulary
    coordinates_M2: NDArray[np.float64]
    regions: tuple[str, ...]
    regions_M: NDArray[np.int32]
    assortment: Ragged
    why_L: NDArray[np.uint8]
    assumed: Ragged
    withdrawn_M: NDArray[np.bool_]
    unavailable: Ragged
    time_zones: Mapping[int, str] = {}

    @property
    def why_M(self) -> NDArray[np.uint8]:
        """Return for each location why it carries what it does: all the bits of its products together."""
        owners_L = np.repeat(np.arange(len(self.assortment)), np.diff(self.assortment.offsets))
        why_M = np.zeros(len(self.assortment), np.uint8)
        for why in (DECLARED, SOLD, ASSUMED):
            why_M[owners_L[self.why_L & why > 0]] |= why
        return why_M

    @property
    def known_M(self) -> NDArray[np.bool_]:
        """Return for each location whether it is known what it carries: something was sold there or declared."""
        return self.why_M & (DECLARED | SOLD) > 0

    @property
    def assumed_M(self) -> NDArray[np.int64]:
        """Return for each location the place in ``assumed`` of what it carries if nothing is known of it.

        That is 0, for all regions together, where the region is unknown, came later, or has nothing to compare with.
        """
        regions_M, sizes = self.regions_M.astype(np.int64), np.diff(self.assumed.offsets)
        regions_M = np.where(regions_M < len(sizes), regions_M, 0)
        return np.where(sizes[regions_M] > 0, regions_M, 0)


class OfferTerms(NamedTuple):
    """Terms of an offer that decide between offers, and that no model reads.

    Attributes:
        value: what a redemption is worth, in the currency of prices; None where unknown.
        priority: how much its chance weighs beside that of others.
        campaign, partner: whose it is; None where it is nobody's.
    """

    value: float | None = None
    priority: float = 1.0
    campaign: str | None = None
    partner: str | None = None


class Offers(NamedTuple):
    """Offers, which give a reason to act now. An empty list of channels or locations means all of them.

    Attributes:
        kinds_O: the kind's place in ``tables.OFFER_KINDS``.
        starts_O, ends_O: int64, seconds since 1970 UTC; valid while ``starts <= moment < ends``.
        audiences_O: code of the audience, -1 for everybody.
        uses_O: int32, how many times one customer may redeem it.
        withdrawn_O: bool, whether it may not be shown any more, though it ran until then.
        terms: by row, of the offers whose terms are not the usual ones. They come with changes and not with a release.
    """

    ids: Vocabulary
    kinds_O: NDArray[np.uint8]
    starts_O: NDArray[np.int64]
    ends_O: NDArray[np.int64]
    audiences_O: NDArray[np.int32]
    uses_O: NDArray[np.int32]
    withdrawn_O: NDArray[np.bool_]
    products: Ragged
    channels: Ragged
    locations: Ragged
    terms: Mapping[int, OfferTerms] = {}


class Promotions(NamedTuple):
    """The promotion plan: which products a location promotes on a channel in a span of time."""

    ids: Vocabulary
    channels_G: NDArray[np.int32]
    locations_G: NDArray[np.int32]
    starts_G: NDArray[np.int64]
    ends_G: NDArray[np.int64]
    products: Ragged


class ContextAttributes(NamedTuple):
    """The context attributes that the recipe declares, besides channel, location and moment, for events and requests.

    Codes are as in ``Attributes``: 0 for unknown, ``i`` for ``labels[x][i - 1]``.
    """

    names: tuple[str, ...] = ()
    labels: tuple[tuple[str, ...], ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the number of codes of each attribute, including the code for unknown."""
        return tuple(len(labels) + 1 for labels in self.labels)

    @property
    def unknown(self) -> tuple[int, ...]:
        """Return the codes of a situation in which every attribute is unknown."""
        return (0,) * len(self.names)

    def codes(self, given: Mapping[str, str], field: str = "context.attributes") -> tuple[int, ...]:
        """Return the codes of a request's values; a value that no event had counts as unknown.

        Args:
            given: values by name; an attribute that is not named is unknown.
            field: how errors name it.

        Raises:
            InvalidInput: there is no such attribute.
        """
        if not given:
            return self.unknown
        self.check(given, field)
        values = ((given.get(name), labels) for name, labels in zip(self.names, self.labels, strict=True))
        return tuple(labels.index(value) + 1 if value in labels else 0 for value, labels in values)

    def check(self, given: Mapping[str, str], field: str) -> None:
        """Raise InvalidInput if the recipe does not declare one of the attributes; name the first such."""
        for name in given:
            if name not in self.names:
                known = f"one of {', '.join(self.names)}" if self.names else "none"
                raise InvalidInput(f"{field}.{name}", f"expected {known}: the recipe declares no others")


class _Words(msgspec.Struct, frozen=True):
    """The catalogue's texts, few enough to be read whole."""

    channels: dict[str, ChannelRule]
    audiences: tuple[str, ...]
    regions: tuple[str, ...]
    attribute_names: tuple[str, ...]
    attribute_labels: tuple[tuple[str, ...], ...]
    context_names: tuple[str, ...] = ()
    context_labels: tuple[tuple[str, ...], ...] = ()
    ahead: tuple[str, ...] = ()
    targets: tuple[TargetType, ...] = ("purchase",)


class Catalogue(NamedTuple):
    """The whole catalogue, immutable.

    Attributes:
        channels: the declared channels, in the order of their codes from 0.
        audiences: the names of the audiences that offers are meant for, in the order of their codes.
        context: the context attributes that a request may give.
        ahead: the channels whose messages go out ahead of a visit, such as email.
        targets: the event types that count as purchases: what is predicted.
        placements: by id. They come with changes and not with a release.
    """

    channels: Mapping[str, ChannelRule]
    audiences: tuple[str, ...]
    products: Products
    locations: Locations
    offers: Offers
    promotions: Promotions
    context: ContextAttributes = ContextAttributes()
    ahead: tuple[str, ...] = ()
    targets: tuple[TargetType, ...] = ("purchase",)
    placements: Mapping[str, PlacementState] = {}

    def channel_code(self, channel: str) -> int | None:
        """Return the channel's code, or None if the catalogue does not declare it."""
        for code, name in enumerate(self.channels):
            if name == channel:
                return code
        return None

    def save(self, folder: Path) -> None:
        """Write the catalogue into an empty folder."""
        products, locations, offers, promotions = self.products, self.locations, self.offers, self.promotions
        _save(
            folder / "products",
            products.ids,
            codes=products.attributes.codes_NA,
            price=products.price_N,
            recommendable=products.recommendable_N,
        )
        _save(
            folder / "locations",
            locations.ids,
            coordinates=locations.coordinates_M2,
            regions=locations.regions_M,
            assortment=locations.assortment,
            why=locations.why_L,
            assumed=locations.assumed,
            withdrawn=locations.withdrawn_M,
            unavailable=locations.unavailable,
        )
        _save(
            folder / "offers",
            offers.ids,
            kinds=offers.kinds_O,
            starts=offers.starts_O,
            ends=offers.ends_O,
            audiences=offers.audiences_O,
            uses=offers.uses_O,
            withdrawn=offers.withdrawn_O,
            products=offers.products,
            channels=offers.channels,
            locations=offers.locations,
        )
        _save(
            folder / "promotions",
            promotions.ids,
            channels=promotions.channels_G,
            locations=promotions.locations_G,
            starts=promotions.starts_G,
            ends=promotions.ends_G,
            products=promotions.products,
        )
        words = _Words(
            dict(self.channels),
            self.audiences,
            locations.regions,
            products.attributes.names,
            products.attributes.labels,
            *self.context,
            self.ahead,
            self.targets,
        )
        (folder / "words.json").write_bytes(msgspec.json.format(msgspec.json.encode(words)))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map the catalogue that ``save`` wrote into memory."""
        words = msgspec.json.decode((folder / "words.json").read_bytes(), type=_Words)
        products, locations = load_arrays(folder / "products"), load_arrays(folder / "locations")
        offers, promotions = load_arrays(folder / "offers"), load_arrays(folder / "promotions")
        return cls(
            channels=words.channels,
            audiences=words.audiences,
            products=Products(
                ids=_ids(products),
                attributes=Attributes(words.attribute_names, words.attribute_labels, products["codes"]),
                price_N=products["price"],
                recommendable_N=products["recommendable"],
            ),
            locations=Locations(
                ids=_ids(locations),
                coordinates_M2=locations["coordinates"],
                regions=words.regions,
                regions_M=locations["regions"],
                assortment=_ragged(locations, "assortment"),
                why_L=locations["why"],
                assumed=_ragged(locations, "assumed"),
                withdrawn_M=locations["withdrawn"],
                unavailable=_ragged(locations, "unavailable"),
            ),
            offers=Offers(
                ids=_ids(offers),
                kinds_O=offers["kinds"],
                starts_O=offers["starts"],
                ends_O=offers["ends"],
                audiences_O=offers["audiences"],
                uses_O=offers["uses"],
                withdrawn_O=offers["withdrawn"],
                products=_ragged(offers, "products"),
                channels=_ragged(offers, "channels"),
                locations=_ragged(offers, "locations"),
            ),
            promotions=Promotions(
                ids=_ids(promotions),
                channels_G=promotions["channels"],
                locations_G=promotions["locations"],
                starts_G=promotions["starts"],
                ends_G=promotions["ends"],
                products=_ragged(promotions, "products"),
            ),
            context=ContextAttributes(words.context_names, words.context_labels),
            ahead=words.ahead,
            targets=words.targets,
        )


def _save(folder: Path, ids: Vocabulary, **columns: Array | Ragged) -> None:
    arrays: dict[str, Array] = {f"ids-{name}": array for name, array in ids.arrays().items()}
    for name, column in columns.items():
        if isinstance(column, Ragged):
            arrays |= {f"{name}-offsets": column.offsets, f"{name}-values": column.values}
        else:
            arrays[name] = column
    save_arrays(folder, arrays)


def _ids(arrays: dict[str, Array]) -> Vocabulary:
    return Vocabulary({name.removeprefix("ids-"): array for name, array in arrays.items() if name.startswith("ids-")})


def _ragged(arrays: dict[str, NDArray[Any]], name: str) -> Ragged:
    return Ragged(arrays[f"{name}-offsets"], arrays[f"{name}-values"])
