"""The ranker of offers: which of the eligible offers a customer redeems, given that they redeem one.

A conditional logit (McFadden, 1974), additive in bent lines of the logarithms of facts: redemptions are few, and a sum
of curves over single facts holds where a network only remembers.

Letters: O offers, F facts, K covered products, X inputs of the logit, Y bends of a line, E events.
"""

import logging
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embeddings.context import Context
from embeddings.eligibility import Eligibility, Place
from embeddings.facts import FactsReader
from embeddings.features import Situation
from embeddings.history import PURCHASE, REDEMPTION, Histories
from embeddings.offers import OFFER_FACTS, OffersReader
from embeddings.profile import profile_of
from embeddings.sources import Asked
from training.evaluate import Fitted
from training.fit_ranker import probabilities
from training.losses import listwise_softmax
from training.questions import Question, customer_vectors
from training.ranker import Ranker
from training.statistics import redeemed_offers, times_redeemed

_FEWEST_DAYS = 50
"""So many redemptions are needed to fit; with fewer, purchases of what is covered, per root of its size, decide."""

_BENDS = (1 / 3, 2 / 3)
"""Where the line of each fact may change its slope: at these quantiles."""

_RIDGE = 1e-2
"""What the sum of the squared weights counts, of standardised inputs, beside the mean loss of a day."""

_STEPS = 100
_NONE = np.zeros(0, np.int64)

_log = logging.getLogger("opportune.train")


class OfferRanker(nn.Module):
    """Facts of offers to log-odds: a sum of one curve for each fact, piecewise linear in its logarithm."""

    bends: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        facts = len(OFFER_FACTS)
        inputs = facts * (1 + len(_BENDS))
        self.register_buffer("bends", torch.zeros(facts, len(_BENDS)))
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        self.weights = nn.Linear(inputs, 1, bias=False)  # what all offers have in common decides nothing
        nn.init.zeros_(self.weights.weight)
        self.weights.weight.data[0, OFFER_FACTS.index("slow_per_root")] = 1.0

    def inputs(self, facts: Tensor) -> Tensor:
        """The logarithm of each fact, and how far it lies beyond each bend (O, X), of facts (O, F)."""
        logs_OF = torch.log1p(facts)
        beyond_OFY = torch.relu(logs_OF[:, :, None] - self.bends)
        return torch.cat([logs_OF, beyond_OFY.flatten(1)], dim=1)

    def forward(self, facts: Tensor) -> Tensor:
        """Log-odds (O) of some offers' facts (O, F)."""
        return self.weights((self.inputs(facts) - self.mean) * self.spread).squeeze(1)


class Redemption(NamedTuple):
    """The offers that were eligible when something was redeemed.

    Attributes:
        facts_OF: float32.
        taken_O: float32, 1 for what was redeemed.
    """

    facts_OF: NDArray[np.float32]
    taken_O: NDArray[np.float32]


def redemptions(past: Histories, begin: int, end: int) -> list[tuple[int, int, frozenset[int]]]:
    """Whose, when and what: the offers redeemed at one moment, from one moment until before another."""
    events = past.events
    owners = np.repeat(np.arange(len(past.customers)), np.diff(past.offsets))
    found: dict[tuple[int, int], set[int]] = {}
    taken = (events["type"] == REDEMPTION) & (events["offer"] >= 0) & (events["at"] >= begin) & (events["at"] < end)
    for place in np.flatnonzero(taken).tolist():
        found.setdefault((int(owners[place]), int(events["at"][place])), set()).add(int(events["offer"][place]))
    return [(customer, at, frozenset(rows)) for (customer, at), rows in sorted(found.items())]


def offer_examples(
    past: Histories, begin: int, end: int, seen: Fitted, ranker: Ranker, length: int
) -> list[Redemption]:
    """What was eligible at each redemption, with only what went before it known; one part for each.

    Redemptions by everybody are those before that very moment: in service they are counted as they happen, too.

    Args:
        past: histories.
        begin: redemptions from this moment on.
        end: and before this one.
        seen: towers, and statistics counted before ``begin``.
        ranker: of products.
        length: how many events the customer tower reads.
    """
    catalog, statistics, towers, vectors_ND = seen
    eligibility = Eligibility(catalog)
    reader, offers = FactsReader(catalog, statistics, vectors_ND), OffersReader(catalog, statistics)
    channels = list(catalog.channels)
    redeemed_E = redeemed_offers(past)
    parts: list[Redemption] = []
    for customer, at, redeemed in redemptions(past, begin, end):
        whole = past[customer]
        earlier = whole.before(at)
        now_E = whole.events_E[whole.events_E["at"] == at]
        bought = now_E[now_E["type"] == PURCHASE]
        taken = now_E[now_E["type"] == REDEMPTION][0]
        location = int(bought["location"][0]) if taken["location"] < 0 and len(bought) else int(taken["location"])
        channel = int(taken["channel"])
        place = Place((location,) if location >= 0 else None)
        if channel < 0 or not earlier.tells:
            continue
        eligible = eligibility.offers(Context(channels[channel]), place, whole.audiences, at)
        is_taken_O = np.isin(eligible.rows_N, list(redeemed))
        if not is_taken_O.any():
            continue
        profile = profile_of(earlier.purchases, statistics)
        asked = Asked.of(profile, earlier, statistics.together, location, at, eligible, _NONE, _NONE)
        question = Question(customer, earlier, Situation(channel, location, at), place, eligible, frozenset())
        customer_D = customer_vectors([question], towers, vectors_ND, length)[0]
        covered_K, facts_KF = offers.covered(asked, reader, vectors_ND, customer_D)
        redeemed_O = times_redeemed(redeemed_E[: int(redeemed_E["at"].searchsorted(at))], catalog)
        facts_OF = offers.read(asked, eligible.rows_N, covered_K, probabilities(ranker, facts_KF), redeemed_O)
        parts.append(Redemption(facts_OF, is_taken_O.astype(np.float32)))
    return parts


def fit_offers(days: list[Redemption]) -> OfferRanker:
    """Fit on what was redeemed; a function of its argument alone, as the loss is convex and begins at zero."""
    ranker = OfferRanker()
    if len(days) < _FEWEST_DAYS:
        _log.info("%d days with redemptions: too few to fit the ranker of offers, at least %d", len(days), _FEWEST_DAYS)
        return ranker.eval()
    facts, taken = (torch.from_numpy(np.concatenate([day[column] for day in days])) for column in range(2))
    owners = torch.from_numpy(np.repeat(np.arange(len(days)), [len(day.taken_O) for day in days]))
    ranker.bends.copy_(torch.from_numpy(np.quantile(np.log1p(facts.numpy()), _BENDS, axis=0).T))
    inputs = ranker.inputs(facts)
    ranker.mean.copy_(inputs.mean(0))
    ranker.spread.copy_(1 / (inputs.std(0, correction=0) + 1e-3))
    inputs = (inputs - ranker.mean) * ranker.spread
    weights = ranker.weights.weight
    nn.init.zeros_(weights)
    optimiser = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = listwise_softmax(inputs @ weights[0], taken, owners, len(days)) + _RIDGE * weights.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return ranker.eval()
