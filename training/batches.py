"""Baskets as training examples: what a customer did before, and what they bought then.

Letters: S baskets in all, B baskets a batch, T targets a batch, C candidates, N products.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Ragged
from embeddings.customer.history import Histories, History
from embeddings.customer.tower_input import Situation, TowerInput, encode
from training.config import FitConfig

# Random streams of one seed, kept apart by these.
_ORDER, _SAMPLE, DROPOUT = range(3)


Situated: TypeAlias = Callable[[Situation, History, np.random.Generator], Situation]
"""Returns what a request would know of a visit's situation, given what the customer did before it."""


@dataclass(frozen=True, slots=True)
class Baskets:
    """Every purchase of one customer in one visit, as one basket; in the order of customers, then of time.

    Attributes:
        customers_S: row of the customer.
        starts_S: how many of the customer's events lie before the basket.
        moments_S: when the first of it was bought, in seconds since 1970 UTC.
        locations_S, channels_S: as in the events, -1 for unknown.
        products: the distinct product rows bought, ascending.
        context_S: what the first purchase says of the situation, as codes.
    """

    customers_S: NDArray[np.int64]
    starts_S: NDArray[np.int64]
    moments_S: NDArray[np.int64]
    locations_S: NDArray[np.int32]
    channels_S: NDArray[np.int16]
    products: Ragged
    context_S: list[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.customers_S)

    @classmethod
    def of(cls, histories: Histories) -> "Baskets":
        """Find every basket with at least one known product that was not taken back."""
        events = histories.events
        owners = np.repeat(np.arange(len(histories.customers)), np.diff(histories.offsets))
        bought, visits = histories.bought()
        first = np.ones(len(bought), np.bool_)
        first[1:] = visits[1:] != visits[:-1]
        heads = bought[first]
        # A basket's past ends where its second begins, whatever else happened in that second.
        order = np.lexsort((events["product"][bought], np.cumsum(first)))
        numbers, products = (np.cumsum(first) - 1)[order], events["product"][bought][order]
        distinct = np.ones(len(bought), np.bool_)
        distinct[1:] = (numbers[1:] != numbers[:-1]) | (products[1:] != products[:-1])
        return cls(
            customers_S=owners[heads],
            starts_S=_first_of_second(owners, events["at"])[heads] - histories.offsets[owners[heads]],
            moments_S=events["at"][heads].astype(np.int64),
            locations_S=events["location"][heads],
            channels_S=events["channel"][heads],
            products=Ragged.grouped(numbers[distinct], products[distinct], len(heads)),
            context_S=histories.context_of(heads),
        )

    def between(self, begin: int, end: int) -> "Baskets":
        """Return the baskets from one moment until before another, in seconds since 1970 UTC."""
        rows = np.flatnonzero((self.moments_S >= begin) & (self.moments_S < end))
        return Baskets(
            self.customers_S[rows],
            self.starts_S[rows],
            self.moments_S[rows],
            self.locations_S[rows],
            self.channels_S[rows],
            Ragged.of(self.products[row] for row in rows.tolist()),
            [self.context_S[row] for row in rows.tolist()],
        )

    def by_customer(self) -> Mapping[int, frozenset[int]]:
        """Return all products that each customer bought, by the customer's row."""
        found: dict[int, set[int]] = {}
        for place, customer in enumerate(self.customers_S.tolist()):
            found.setdefault(customer, set()).update(self.products[place].tolist())
        return {customer: frozenset(rows) for customer, rows in found.items()}

    def situation(self, row: int) -> Situation:
        """Return the situation in which a basket was bought: channel, location, moment and context."""
        return Situation(
            int(self.channels_S[row]), int(self.locations_S[row]), int(self.moments_S[row]), self.context_S[row]
        )

    def encode(
        self,
        rows: NDArray[np.integer],
        histories: Histories,
        length: int,
        situated: Situated,
        random: np.random.Generator,
    ) -> TowerInput:
        """Encode the inputs of the customer tower at the moment of some baskets.

        Args:
            rows: of the baskets.
            histories: of which they are.
            length: how many events the tower reads.
            situated: what a request knows of the situation of each.
            random: for that.
        """
        pasts = []
        situations = []
        for row in rows.tolist():
            past = histories[int(self.customers_S[row])]
            start = int(self.starts_S[row])
            pasts.append(replace(past, events_E=past.events_E[:start]))
            situations.append(situated(self.situation(row), pasts[-1], random))
        return encode(pasts, situations, length)


class Batch(NamedTuple):
    """One step's examples.

    Attributes:
        tower_input: B customers at the moment of their basket.
        owners_T: which of the B customers each target belongs to.
        targets_T: each target's place among the candidates.
        candidates_C: distinct product rows, ascending: all targets, and uniform negatives.
        log_inclusion_C: log of the probability that each candidate got into the batch.
        bought_BC: whether a candidate is in the customer's basket, and so no negative of theirs.
    """

    tower_input: TowerInput
    owners_T: NDArray[np.int64]
    targets_T: NDArray[np.int64]
    candidates_C: NDArray[np.int64]
    log_inclusion_C: NDArray[np.float32]
    bought_BC: NDArray[np.bool_]


class Batches:
    """All batches of a run, each a function of (seed, epoch, step) alone, so that a run resumes where it was killed.

    Attributes:
        targets: how many an epoch has.
    """

    def __init__(
        self,
        histories: Histories,
        products: int,
        length: int,
        config: FitConfig,
        seed: int,
        situated: Situated,
        *,
        novel: bool = False,
    ) -> None:
        self._histories = histories
        self._baskets = Baskets.of(histories)
        self._length = length
        self._config = config
        self._seed = seed
        self._situated = situated
        self._novel = novel
        sizes_S = np.diff(self._baskets.products.offsets)
        # A basket gives at most `targets_a_basket` targets: that is how often a product becomes one.
        chances = np.repeat(np.minimum(1, config.targets_a_basket / np.maximum(sizes_S, 1)), sizes_S)
        targets_N = np.bincount(self._baskets.products.values, chances, products)
        self._seen = np.flatnonzero(targets_N > 0)
        share = min(1.0, self.steps * config.baskets_a_batch / max(len(self._baskets), 1))
        self.targets = round(share * int(np.minimum(sizes_S, config.targets_a_basket).sum()))
        in_batch_N = -np.expm1(-targets_N / max(len(self._baskets), 1) * config.baskets_a_batch)
        uniform = -np.expm1(-config.uniform_negatives / max(len(self._seen), 1))
        self._log_inclusion_N = np.log(np.maximum(in_batch_N + (1 - in_batch_N) * uniform, 1e-12)).astype(np.float32)

    @property
    def steps(self) -> int:
        """Return how many batches make an epoch: all baskets, or as many as ``most_steps`` allows."""
        return min(-(-len(self._baskets) // self._config.baskets_a_batch), self._config.most_steps)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, from one step on."""
        order_S = np.random.default_rng([self._seed, _ORDER, epoch]).permutation(len(self._baskets))
        size = self._config.baskets_a_batch
        for step in range(first, self.steps):
            yield self._batch(
                order_S[step * size : (step + 1) * size], np.random.default_rng([self._seed, _SAMPLE, epoch, step])
            )

    def _batch(self, rows_B: NDArray[np.int64], random: np.random.Generator) -> Batch:
        config, baskets = self._config, self._baskets
        bought = [baskets.products[row] for row in rows_B.tolist()]
        chosen = [
            random.permutation(one)[: config.targets_a_basket] if len(one) > config.targets_a_basket else one
            for one in bought
        ]
        targets = np.concatenate(chosen)
        negatives = random.choice(self._seen, config.uniform_negatives)
        candidates_C = np.unique(np.concatenate([targets, negatives])).astype(np.int64)
        bought_BC = np.zeros((len(rows_B), len(candidates_C)), np.bool_)
        owners = np.repeat(np.arange(len(rows_B)), [len(one) for one in bought])
        flat = np.concatenate(bought)
        places = np.minimum(candidates_C.searchsorted(flat), len(candidates_C) - 1)
        hit = candidates_C[places] == flat
        bought_BC[owners[hit], places[hit]] = True
        tower_input = baskets.encode(rows_B, self._histories, self._length, self._situated, random)
        if self._novel:  # what was taken before is not asked for again: it was not passed over
            owners, columns = np.nonzero(tower_input.products_BL >= 0)
            before = tower_input.products_BL[owners, columns]
            places = np.minimum(candidates_C.searchsorted(before), len(candidates_C) - 1)
            hit = candidates_C[places] == before
            bought_BC[owners[hit], places[hit]] = True
        return Batch(
            tower_input=tower_input,
            owners_T=np.repeat(np.arange(len(rows_B)), [len(one) for one in chosen]),
            targets_T=candidates_C.searchsorted(targets),
            candidates_C=candidates_C,
            log_inclusion_C=self._log_inclusion_N[candidates_C],
            bought_BC=bought_BC,
        )


def _first_of_second(owners: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each event, the place of the first event of the same customer in the same second."""
    first = np.ones(len(at), np.bool_)
    first[1:] = (owners[1:] != owners[:-1]) | (at[1:] != at[:-1])
    places = np.where(first, np.arange(len(at)), 0)
    return np.maximum.accumulate(places) if len(places) else places
