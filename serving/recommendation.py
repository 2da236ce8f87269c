"""A recommend call and its answer, as they are over HTTP."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import force_setattr

from embeddings.catalogue.context import Context, Id, Identifier, ListedId, Said, ids_as_text, listed_ids
from embeddings.catalogue.filters import Filters
from embeddings.errors import InvalidInput
from embeddings.index.base import Plan
from serving.details import Include
from serving.explain import Reason
from serving.ranked import Kind, Source

_EARLIER = Meta(extra_json_schema={"deprecated": True})
PRODUCTS: tuple[Kind, ...] = ("product",)
LIMIT = 10
"""What is recommended, and how much of it, where neither a request nor its placement says so."""
MOST_PLACEMENTS = 10
Wanted = Annotated[tuple[ListedId, ...], Meta(min_length=1, max_length=10_000)]


class RecommendRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A recommend call.

    Attributes:
        customer_id: absent for somebody anonymous.
        attributes: what the customer is, by the names that customers' attributes have; a value that no customer had
            before the data cut-off is an unknown one, and an attribute not given stays as it is known.
        placement: the name of the slot to be filled; a label as long as no placements are declared.
        placements: several of them, each of which gets an answer; no item is in two of these.
        kinds: what to recommend; what the placement shows unless given, or products.
        limit: how many items; as many as the placement has slots unless given, or 10.
        exclude: ids of products or offers not to show; unknown ones are of no effect.
        filter_already_bought: whether only products are wanted that this customer has never bought; None for what the
            release does by itself.
        filters: which products are wanted, by their attributes and their price.
        items: ids of the products that are wanted, and no others; unknown ones are of no effect.
        novel, among: the earlier names of these two.
        explain: whether each item shows what lies behind its score.
        include: what each item shows of what the catalogue holds; nothing but its id unless asked for.
        at_least: the ``seq`` of a change of the catalogue that the answer must have seen.
        dry_run: whether the answer leaves no trace: it is not stored as a decision, and moves no clock.
    """

    context: Context
    customer_id: Id | None = None
    attributes: Said = {}
    placement: Identifier | None = None
    placements: Annotated[tuple[Identifier, ...], Meta(max_length=MOST_PLACEMENTS)] = ()
    kinds: Annotated[tuple[Kind, ...], Meta(min_length=1, max_length=2)] | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=100)] | UnsetType = UNSET
    exclude: Annotated[tuple[ListedId, ...], Meta(max_length=1000)] = ()
    filter_already_bought: bool | None = None
    filters: Filters = {}
    items: Wanted | None = None
    explain: bool = False
    include: Annotated[tuple[Include, ...], Meta(max_length=3)] = ()
    at_least: Annotated[int, Meta(ge=0)] = 0
    dry_run: bool = False
    novel: Annotated[bool, _EARLIER] = False
    among: Annotated[Wanted | None, _EARLIER] = None

    def __post_init__(self) -> None:
        """Convert ids that came as JSON integers to text, and take the values that are given by earlier names."""
        ids_as_text(self, "customer_id")
        if self.exclude:
            force_setattr(self, "exclude", listed_ids("exclude", self.exclude))
        if self.items is not None:
            force_setattr(self, "items", listed_ids("items", self.items))
        if self.among is not None:
            if self.items is not None:
                raise InvalidInput("among", "expected items alone: among is its earlier name")
            force_setattr(self, "items", listed_ids("among", self.among))
        if self.novel:
            force_setattr(self, "filter_already_bought", self.novel)
        if self.placements:
            if self.placement is not None:
                raise InvalidInput("placement", "expected none beside placements")
            if len(set(self.placements)) < len(self.placements):
                raise InvalidInput("placements", "expected each placement once")
        if self.filters and self.kinds is not UNSET and "product" not in self.kinds:
            raise InvalidInput("filters", "expected only with product among kinds: offers are not filtered")


class Explanation(Struct, frozen=True):
    """What lies behind a score.

    Attributes:
        plan: how the towers' candidates were searched; null where they were not. It decides the time, not the answer.
        features: what the ranker read, by name; empty where it was not asked.
        facts: the same by its earlier name.
    """

    plan: Plan | None
    features: dict[str, float]
    facts: dict[str, float]


class Item(Struct, frozen=True):
    """One recommended product or offer; see ``Details`` for what ``include`` adds.

    Attributes:
        value: probability x value x priority, where the placement ranks by it and the value is known.
        propensity: the probability with which this slot shows this item, given those above it; where the placement
            explores.
    """

    id: str
    kind: Kind
    rank: int
    score: float
    source: Source
    reasons: list[Reason]
    value: float | UnsetType = UNSET
    propensity: float | UnsetType = UNSET
    explanation: Explanation | UnsetType = UNSET
    attributes: dict[str, str] | UnsetType = UNSET
    price: float | UnsetType = UNSET
    products: list[str] | UnsetType = UNSET
    products_total: int | UnsetType = UNSET


class Stopped(Struct, frozen=True):
    """The gate that stopped a whole placement: its code, and a sentence."""

    code: Literal["quiet_hours"]
    text: str


class Recommendation(Struct, frozen=True):
    """The answer to a recommend call.

    Attributes:
        catalogue_seq: the newest change of the catalogue that it has seen; 0 where there was none.
        personalised: whether the customer's own history shaped it.
        fallback: whether a fallback offer is shown because nothing else was possible.
        degraded: whether something was unavailable, or the data are older than the recipe allows, and the answer may be
            worse for it.
        placement: that was asked for, if any.
        stopped: why the placement shows nothing at all.
    """

    recommendation_id: str
    model_version: str
    catalogue_seq: int
    items: list[Item]
    personalised: bool
    fallback: bool
    degraded: bool
    placement: str | UnsetType = UNSET
    stopped: Stopped | UnsetType = UNSET


class Recommendations(Struct, frozen=True):
    """The answers to a recommend call for several placements, by their ids; no item is in two of them."""

    placements: dict[str, Recommendation]
