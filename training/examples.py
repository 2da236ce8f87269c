"""What the ranker learns from: candidates that the sources really proposed before a basket, and what the basket held.

Letters: Q questions, M candidates of all questions, F facts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.catalogue.columns import Catalog
from embeddings.catalogue.eligibility import Eligibility, Place
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.customer.history import EVENT, EVENT_CODES, PURCHASE, Events, History
from embeddings.customer.session import SESSION_SECONDS
from embeddings.index.planned import PlannedIndex
from embeddings.ranking.features import FACTS, FactsReader
from embeddings.ranking.popularity import LONGEST, most_popular, popular
from embeddings.ranking.profile import profile_of
from embeddings.ranking.sources import ALL, MORE, RETRIEVED, Asked, propose
from embeddings.ranking.statistics import Statistics
from training.fit import Towers
from training.questions import Question, customer_vectors

_AT_ONCE = 256
_CACHE_BYTES = 2**28
_LOOKED, _OTHERS = 0.1, 4
"""How much of what is about to be bought was looked at before, and how many other products for each of it."""

_FIRST = (0, 0, 1, 2, 3, 5)
"""How many products of the basket a newcomer has bought already when the question is asked, each as often."""
_FIRST_SECONDS = 60
"""How long before the question."""

_CART, _VIEW = EVENT_CODES["add_to_cart"], EVENT_CODES["view"]


class Examples(NamedTuple):
    """Candidates of some questions.

    Attributes:
        facts_MF: float32 facts.
        taken_M: float32, 1 where the basket held the candidate, else 0.
        rows_M: int64 catalogue rows.
        offsets_Q: where each question's candidates begin, and one more.
    """

    facts_MF: NDArray[np.float32]
    taken_M: NDArray[np.float32]
    rows_M: NDArray[np.int64]
    offsets_Q: NDArray[np.int64]

    def spans(self) -> list[tuple[int, int]]:
        """Where each question's candidates begin and end."""
        offsets = self.offsets_Q.tolist()
        return list(pairwise(offsets))

    @classmethod
    def joined(cls, parts: Sequence["Examples"]) -> "Examples":
        """Those of several windows."""
        begins = np.cumsum([0, *(len(part.rows_M) for part in parts)])
        offsets = [part.offsets_Q[1:] + begin for part, begin in zip(parts, begins.tolist(), strict=False)]
        return cls(
            np.concatenate([part.facts_MF for part in parts]),
            np.concatenate([part.taken_M for part in parts]),
            np.concatenate([part.rows_M for part in parts]),
            np.concatenate([np.zeros(1, np.int64), *offsets]),
        )


def examples(
    questions: Sequence[Question],
    catalog: Catalog,
    statistics: Statistics,
    towers: Towers,
    vectors_ND: NDArray[np.float32],
    length: int,
) -> Examples:
    """Gather candidates and facts exactly as the service does.

    Args:
        questions: baskets with what went before them.
        catalog: as observed before the questions.
        statistics: as counted before them.
        towers: fitted on what came before them.
        vectors_ND: the towers' product vectors.
        length: how many events the customer tower reads.
    """
    asked = asks(questions, catalog, statistics, towers, vectors_ND, length)
    return gather(asked, FactsReader(catalog, statistics, vectors_ND))


def gather(asked: Iterable["Ask"], reader: FactsReader) -> Examples:
    """Gather the candidates of some questions with their facts; the reader is of what was known before them."""
    facts: list[NDArray[np.float32]] = [np.empty((0, len(FACTS)), np.float32)]
    taken: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
    rows: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    for one in asked:
        own = propose(one.asked, list(ALL.values())).rows_K
        if one.asked.session is not None:
            own = own[~np.isin(own, one.asked.session.cart)]
        facts_KF = np.empty((len(own), len(FACTS)), np.float32)
        reader.read(one.asked, own, one.customer_D, one.inner_K, facts_KF)
        facts.append(facts_KF)
        rows.append(own)
        taken.append(np.isin(own, list(one.question.bought)).astype(np.float32))
    sizes = np.array([len(one) for one in rows[1:]], np.int64)
    return Examples(
        np.concatenate(facts),
        np.concatenate(taken),
        np.concatenate(rows),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]),
    )


class Ask(NamedTuple):
    """A question as the sources of candidates are asked it.

    Attributes:
        customer_D: the customer's vector.
        inner_K: inner products with it of what the towers retrieved.
    """

    question: Question
    asked: Asked
    customer_D: NDArray[np.float32]
    inner_K: NDArray[np.float32]


def asks(
    questions: Sequence[Question],
    catalog: Catalog,
    statistics: Statistics,
    towers: Towers,
    vectors_ND: NDArray[np.float32],
    length: int,
) -> Iterator[Ask]:
    """Yield the questions as the service would ask the sources; the arguments are those of ``examples``."""
    index = PlannedIndex(vectors_ND, "cpu", cache_bytes=_CACHE_BYTES)
    rankings: dict[tuple[bytes, Place], NDArray[np.int64]] = {}
    profiled = cache(partial(profile_of, statistics=statistics))  # most customers are asked twice
    for start in range(0, len(questions), _AT_ONCE):
        some = questions[start : start + _AT_ONCE]
        customers_BD = customer_vectors(some, towers, vectors_ND, length)
        retrieved = index.search(customers_BD, MORE * RETRIEVED, [one.eligible for one in some])
        for question, customer_D, rows_K, inner_K in zip(
            some, customers_BD, retrieved.rows_BK, retrieved.scores_BK, strict=True
        ):
            asked = Asked.of(
                profiled(question.past.purchases),
                question.past,
                statistics.together,
                question.situation.location,
                question.situation.moment,
                question.eligible,
                rows_K if question.novel else rows_K[:RETRIEVED],
                _popular(rankings, catalog, question),
                novel=question.novel,
                every=question.every,
            )
            yield Ask(question, asked, customer_D, inner_K)


def with_sessions(questions: Sequence[Question], share: float, random: np.random.Generator) -> list[Question]:
    """The questions, some of them asked in the middle of a visit.

    Of a share of the baskets a random half is already in the basket when the question is asked, and is asked for no
    more; of the other half, and of as many other products of the set, a few have been looked at. Nothing of a basket
    is seen that a service would not be told in events.
    """
    return [_within_visit(one, random) if len(one.bought) > 1 and random.random() < share else one for one in questions]


def for_novel(questions: Sequence[Question], catalog: Catalog, baskets: Mapping[int, frozenset[int]]) -> list[Question]:
    """The same customers, asked for products of the whole catalogue that they have never bought.

    Args:
        questions: asked before.
        catalog: holds the products.
        baskets: what each customer bought in the window, by row.
    """
    everything = Eligibility(catalog).recommendable
    return [
        one._replace(
            eligible=EligibleSet.derived(everything, one.past.purchases.rows_R),
            bought=baskets[one.customer].difference(one.past.purchases.rows_R.tolist()),
            allowed=everything,
            novel=True,
        )
        for one in questions
    ]


def for_new(
    questions: Sequence[Question],
    catalog: Catalog,
    baskets: Mapping[int, frozenset[int]],
    most: int,
    random: np.random.Generator,
) -> list[Question]:
    """Customers who bought something that was new in the window, asked to rank it among other new products.

    Args:
        questions: asked before.
        catalog: as observed before the window.
        baskets: what each customer bought in the window, by row.
        most: how many new products a question is about.
        random: chooses them.
    """
    sold = np.unique(np.fromiter((row for rows in baskets.values() for row in rows), np.int64))
    new = sold[~catalog.products.trained_N[sold] & catalog.products.recommendable_N[sold]]
    asked: list[Question] = []
    for one in questions:
        bought = baskets[one.customer].intersection(new.tolist())
        if bought:
            others = random.permutation(new)[:most]
            rows = np.unique(np.concatenate([others, np.array(sorted(bought), np.int64)]))
            asked.append(
                one._replace(eligible=EligibleSet.of(rows, FOREVER), bought=bought, allowed=one.eligible, every=True)
            )
    return asked


def as_newcomers(questions: Sequence[Question], random: np.random.Generator) -> list[Question]:
    """The questions, asked as if nobody had known the customer before this visit.

    A few random products of the basket have been bought already, or none, and are asked for no more. Half of the
    customers are described by their attributes; nobody belongs to an audience.
    """
    return [_as_newcomer(one, random) for one in questions]


def _as_newcomer(question: Question, random: np.random.Generator) -> Question:
    count = min(int(random.choice(_FIRST)), len(question.bought) - 1)
    first = random.permutation(sorted(question.bought))[:count]
    events = _events(question, first, np.full(count, PURCHASE), np.full(count, _FIRST_SECONDS))
    attributes_A = question.past.attributes_A * (random.random() < 0.5)
    past = History(events, attributes_A, (), question.past.visit_pause)
    return question._replace(past=past, bought=question.bought.difference(first.tolist()))


def _within_visit(question: Question, random: np.random.Generator) -> Question:
    bought = random.permutation(sorted(question.bought))
    half = len(bought) // 2
    cart, rest = bought[:half], bought[half:]
    looked = rest[random.random(len(rest)) < _LOOKED]
    others = random.choice(question.eligible.rows_N, min(_OTHERS * len(looked), len(question.eligible.rows_N)))
    products = np.concatenate([cart, looked, others])
    types = np.repeat([_CART, _VIEW], [len(cart), len(looked) + len(others)])
    session = _events(question, products, types, random.integers(1, SESSION_SECONDS // 4, len(products)))
    return question._replace(past=question.past.append(session), bought=frozenset(rest.tolist()))


def _events(
    question: Question, products_E: NDArray[np.integer], types_E: NDArray[np.integer], ago_E: NDArray[np.integer]
) -> Events:
    """Events of the visit that the question is asked in, so many seconds before it."""
    events = np.zeros(len(products_E), EVENT)
    events["product"], events["type"], events["at"] = products_E, types_E, question.situation.moment - ago_E
    events["offer"], events["quantity"], events["value"] = -1, 1, np.nan
    events["location"], events["channel"] = question.situation.location, question.situation.channel
    return events


def _popular(
    rankings: dict[tuple[bytes, Place], NDArray[np.int64]], catalog: Catalog, question: Question
) -> NDArray[np.int64]:
    """What is popular of what the context allows, and of that what is asked for; the ranking is worked out once."""
    allowed = question.eligible if question.allowed is None else question.allowed
    key = allowed.fingerprint, question.place
    if key not in rankings:
        rankings[key] = most_popular(popular(catalog, allowed.rows_N, question.place), LONGEST).rows_R
    rows_K = rankings[key]
    return rows_K if question.allowed is None else rows_K[question.eligible.contains(rows_K)]
