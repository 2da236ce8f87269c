"""Examples for the ranker: candidates that the sources really proposed before a basket, and the basket's products.

Letters: Q examples, M candidates of all examples, F features.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Table
from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.eligibility import Eligibility
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.customer.history import EVENT, EVENT_CODES, PURCHASE, Events, History
from embeddings.customer.session import SESSION_SECONDS
from embeddings.index.planned import PlannedIndex
from embeddings.ranking.features import RANKER_FEATURES, FeatureReader, is_regular
from embeddings.ranking.observed import Observed, SoldLists
from embeddings.ranking.popularity import LONGEST, most_popular, popular
from embeddings.ranking.profile import profile_of
from embeddings.ranking.sources import ALL, MORE, RETRIEVED, RankingQuery, propose
from embeddings.ranking.statistics import Statistics
from training.examples import Example, customer_vectors
from training.fit import Towers

_AT_ONCE = 256
_CACHE_BYTES = 2**28
_LOOKED, _OTHERS = 0.1, 4
"""How much of what is about to be bought was looked at before, and how many other products for each of it."""

_FIRST = (0, 0, 1, 2, 3, 5)
"""How many products of the basket a newcomer has bought already before the example's moment, each as often."""
_FIRST_SECONDS = 60
"""How long before that moment."""

_CART, _VIEW = EVENT_CODES["add_to_cart"], EVENT_CODES["view"]


PopularRows: TypeAlias = dict[tuple[bytes, SoldLists], NDArray[np.int64]]
"""The most popular rows by what a context allows and where it is."""


class ExampleCandidates(NamedTuple):
    """Candidates of some examples.

    Attributes:
        features_MF: float32 features.
        taken_M: float32, 1 where the basket held the candidate, else 0.
        rows_M: int64 catalogue rows.
        regular_M: bool, whether the ranker of regular customers judges the candidate.
        offsets_Q: where each example's candidates begin, and one more.
    """

    features_MF: NDArray[np.float32]
    taken_M: NDArray[np.float32]
    rows_M: NDArray[np.int64]
    regular_M: NDArray[np.bool_]
    offsets_Q: NDArray[np.int64]

    def spans(self) -> list[tuple[int, int]]:
        """Return the places where each example's candidates begin and end."""
        offsets = self.offsets_Q.tolist()
        return list(pairwise(offsets))

    def some(self, wanted_Q: NDArray[np.int64]) -> "ExampleCandidates":
        """Return the candidates of some examples, given by their numbers."""
        sizes_Q = np.diff(self.offsets_Q)[wanted_Q]
        ends_Q = np.cumsum(sizes_Q)
        begins_M = np.repeat(self.offsets_Q[wanted_Q] - ends_Q + sizes_Q, sizes_Q)
        kept_M = begins_M + np.arange(len(begins_M))
        return ExampleCandidates(
            self.features_MF[kept_M],
            self.taken_M[kept_M],
            self.rows_M[kept_M],
            self.regular_M[kept_M],
            np.concatenate([np.zeros(1, np.int64), ends_Q]),
        )

    @classmethod
    def joined(cls, parts: list["ExampleCandidates"]) -> "ExampleCandidates":
        """Return the candidates of several windows as one; empty the list, as there is no room for them twice."""
        begins = np.cumsum([0, *(len(part.rows_M) for part in parts)])
        offsets = [part.offsets_Q[1:] + begin for part, begin in zip(parts, begins.tolist(), strict=False)]
        taken, rows, regular = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("taken_M", "rows_M", "regular_M")
        )
        features_MF = np.empty((len(rows), len(RANKER_FEATURES)), np.float32)
        for begin in begins[:-1].tolist():
            part_MF = parts.pop(0).features_MF
            features_MF[begin : begin + len(part_MF)] = part_MF
        return cls(features_MF, taken, rows, regular, np.concatenate([np.zeros(1, np.int64), *offsets]))


def gather_candidates(
    examples: Sequence[Example],
    catalogue: Catalogue,
    statistics: Statistics,
    towers: Towers,
    vectors_ND: NDArray[np.float32],
    length: int,
) -> ExampleCandidates:
    """Gather candidates and features exactly as the service does.

    Args:
        examples: baskets with what went before them.
        catalogue: as observed before the examples.
        statistics: as counted before them.
        towers: fitted on what came before them.
        vectors_ND: the towers' product vectors.
        length: how many events the customer tower reads.
    """
    queried = query_examples(examples, statistics, towers, vectors_ND, length)
    return gather(queried, FeatureReader(catalogue.promotions, statistics, Table.of(vectors_ND)))


def gather(queried: Iterable["QueriedExample"], reader: FeatureReader) -> ExampleCandidates:
    """Gather the candidates of some examples with their features.

    The reader knows only what was known before the examples.
    """
    features: list[NDArray[np.float32]] = [np.empty((0, len(RANKER_FEATURES)), np.float32)]
    taken: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
    rows: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    regular: list[NDArray[np.bool_]] = [np.empty(0, np.bool_)]
    for one in queried:
        own = propose(one.query, list(ALL.values())).rows_K
        if one.query.session is not None:
            own = own[~np.isin(own, one.query.session.cart)]
        features_KF = np.empty((len(own), len(RANKER_FEATURES)), np.float32)
        reader.read(one.query, own, one.customer_D, one.inner_K, features_KF)
        features.append(features_KF)
        rows.append(own)
        regular.append(is_regular(one.query, features_KF))
        taken.append(np.isin(own, list(one.example.bought)).astype(np.float32))
    sizes = np.array([len(one) for one in rows[1:]], np.int64)
    return ExampleCandidates(
        np.concatenate(features),
        np.concatenate(taken),
        np.concatenate(rows),
        np.concatenate(regular),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]),
    )


class QueriedExample(NamedTuple):
    """An example with the query that the sources of candidates answer.

    Attributes:
        customer_D: the customer's vector.
        inner_K: inner products with it of what the towers retrieved.
    """

    example: Example
    query: RankingQuery
    customer_D: NDArray[np.float32]
    inner_K: NDArray[np.float32]


def query_examples(
    examples: Sequence[Example],
    statistics: Statistics,
    towers: Towers,
    vectors_ND: NDArray[np.float32],
    length: int,
) -> Iterator[QueriedExample]:
    """Yield the examples with their queries, as the service would make them; arguments as in ``gather_candidates``."""
    index = PlannedIndex(vectors_ND, "cpu", cache_bytes=_CACHE_BYTES)
    rankings: PopularRows = {}
    profiled = cache(partial(profile_of, statistics=statistics))  # most customers have two examples
    for start in range(0, len(examples), _AT_ONCE):
        some = examples[start : start + _AT_ONCE]
        customers_BD = customer_vectors(some, towers, vectors_ND, length)
        retrieved = index.search(customers_BD, MORE * RETRIEVED, [one.eligible for one in some])
        for example, customer_D, rows_K, inner_K in zip(
            some, customers_BD, retrieved.rows_BK, retrieved.scores_BK, strict=True
        ):
            query = RankingQuery.of(
                profiled(example.past.purchases),
                example.past,
                statistics.bought_together,
                example.situation,
                example.eligible,
                rows_K if example.novel else rows_K[:RETRIEVED],
                popular_rows(rankings, statistics.observed, example),
                novel=example.novel,
                rank_all=example.rank_all,
            )
            yield QueriedExample(example, query, customer_D, inner_K)


def with_sessions(examples: Sequence[Example], share: float, random: np.random.Generator) -> list[Example]:
    """Return the examples, some of them moved to the middle of their visit.

    In a share of the examples a random half of the products lies in the basket already and is not to be predicted any
    more. A few products of the other half, and several other products of the set for each of them, have been looked at.
    What is asked ahead of a visit is not in the middle of one.
    Nothing of a basket is seen that a service would not be told in events.
    """
    return [
        _within_visit(one, random)
        if len(one.bought) > 1 and not one.situation.ahead and random.random() < share
        else one
        for one in examples
    ]


def for_novel(
    examples: Sequence[Example], catalogue: Catalogue, baskets: Mapping[int, frozenset[int]]
) -> list[Example]:
    """Return examples of the same customers for products of the whole catalogue that they have never bought.

    Args:
        examples: made before.
        catalogue: holds the products.
        baskets: what each customer bought in the window, by row.
    """
    everything = Eligibility(catalogue).recommendable
    return [
        one._replace(
            eligible=EligibleSet.derived(everything, one.past.purchases.rows_R),
            bought=baskets[one.customer].difference(one.past.purchases.rows_R.tolist()),
            allowed=everything,
            novel=True,
        )
        for one in examples
    ]


def for_new(
    examples: Sequence[Example],
    new_N: NDArray[np.bool_],
    baskets: Mapping[int, frozenset[int]],
    most: int,
    random: np.random.Generator,
) -> list[Example]:
    """Return examples of customers who bought something that was new in the window, to be ranked among new products.

    Args:
        examples: made before.
        new_N: which products may be shown and were not sold before the window.
        baskets: what each customer bought in the window, by row.
        most: how many new products an example ranks.
        random: chooses them.
    """
    sold = np.unique(np.fromiter((row for rows in baskets.values() for row in rows), np.int64))
    new = sold[new_N[sold]]
    found: list[Example] = []
    for one in examples:
        bought = baskets[one.customer].intersection(new.tolist())
        if bought:
            others = random.permutation(new)[:most]
            rows = np.unique(np.concatenate([others, np.array(sorted(bought), np.int64)]))
            found.append(
                one._replace(eligible=EligibleSet.of(rows, FOREVER), bought=bought, allowed=one.eligible, rank_all=True)
            )
    return found


def as_newcomers(examples: Sequence[Example], random: np.random.Generator) -> list[Example]:
    """Return the examples as if nobody had known the customer before this visit.

    A few random products of the basket have been bought already, or none, and are not to be predicted any more. Half of
    the customers are described by their attributes; nobody belongs to an audience.
    """
    return [_as_newcomer(one, random) for one in examples]


def _as_newcomer(example: Example, random: np.random.Generator) -> Example:
    count = min(int(random.choice(_FIRST)), len(example.bought) - 1)
    first = random.permutation(sorted(example.bought))[:count]
    events = _events(example, first, np.full(count, PURCHASE), np.full(count, _FIRST_SECONDS))
    attributes_A = example.past.attributes_A * (random.random() < 0.5)
    past = History(events, attributes_A, (), example.past.visit_pause)
    return example._replace(
        past=past,
        situation=example.situation.at(example.place, past.purchases),
        bought=example.bought.difference(first.tolist()),
    )


def _within_visit(example: Example, random: np.random.Generator) -> Example:
    bought = random.permutation(sorted(example.bought))
    half = len(bought) // 2
    cart, rest = bought[:half], bought[half:]
    looked = rest[random.random(len(rest)) < _LOOKED]
    others = random.choice(example.eligible.rows_N, min(_OTHERS * len(looked), len(example.eligible.rows_N)))
    products = np.concatenate([cart, looked, others])
    types = np.repeat([_CART, _VIEW], [len(cart), len(looked) + len(others)])
    session = _events(example, products, types, random.integers(1, SESSION_SECONDS // 4, len(products)))
    return example._replace(past=example.past.append(session), bought=frozenset(rest.tolist()))


def _events(
    example: Example, products_E: NDArray[np.integer], types_E: NDArray[np.integer], ago_E: NDArray[np.integer]
) -> Events:
    """Return events of the example's visit, so many seconds before its moment."""
    events = np.zeros(len(products_E), EVENT)
    events["product"], events["type"], events["at"] = products_E, types_E, example.situation.moment - ago_E
    events["offer"], events["quantity"], events["value"] = -1, 1, np.nan
    # Where no place is named, an event has none either.
    events["location"] = example.situation.location if example.situation.placed else -1
    events["channel"] = example.situation.channel
    return events


def popular_rows(rankings: PopularRows, observed: Observed, example: Example) -> NDArray[np.int64]:
    """Return the most popular products of those that the context allows and the example asks for.

    The ranking of what a context allows is worked out once, and kept in ``rankings``.
    """
    allowed = example.eligible if example.allowed is None else example.allowed
    key = allowed.fingerprint, observed.lists_of(example.place.rows)
    if key not in rankings:
        rankings[key] = most_popular(popular(observed, allowed.rows_N, key[1]), LONGEST).rows_R
    rows_K = rankings[key]
    return rows_K if example.allowed is None else rows_K[example.eligible.contains(rows_K)]
