"""The score against plain sums over Python numbers."""

import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.eligible import FOREVER, EligibleSet
from embeddings.history import EVENT, EVENT_CODES, PURCHASE, History
from embeddings.index.base import Candidates
from embeddings.scoring import Mixer, ScoreParameters, Shares, bought_again

NOW = 1_750_000_000
ROWS = 12


class Event(NamedTuple):
    seconds_ago: int
    product: int
    location: int
    type: int


EVENTS = st.lists(
    st.builds(
        Event,
        st.integers(-100_000, 40_000_000),
        st.integers(-1, 5),
        st.integers(-1, 2),
        st.sampled_from([PURCHASE, EVENT_CODES["view"], EVENT_CODES["redemption"]]),
    ),
    max_size=20,
)
VECTORS = st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=ROWS, max_size=ROWS)


@given(
    EVENTS,
    st.integers(-1, 2),
    st.sampled_from([0.9, 0.995, 1.0]),
    st.sampled_from([0.0, 2.0]),
)
def test_bought_again_is_each_products_part_of_a_plain_sum(
    events: list[Event], location: int, daily_decay: float, same_location: float
):
    events_E = np.zeros(len(events), EVENT)
    events_E["at"] = [NOW - event.seconds_ago for event in events]
    for field in ("product", "location", "type"):
        events_E[field] = [getattr(event, field) for event in events]
    found = bought_again(
        History(events_E, np.zeros(0, np.int32), ()), location, NOW, ScoreParameters(daily_decay, same_location)
    )

    weights: defaultdict[int, float] = defaultdict(float)
    for event in events:
        if event.type == PURCHASE and event.product >= 0:
            here = location >= 0 and event.location == location
            weight = daily_decay ** (max(0, event.seconds_ago) / 86_400)
            weights[event.product] += weight * (1 + same_location if here else 1)
    total = sum(weights.values())
    assert found.rows_R.tolist() == sorted(weights)
    assert found.shares_R.tolist() == pytest.approx([weights[row] / total for row in sorted(weights)], rel=1e-5)


@given(
    VECTORS,
    st.sets(st.integers(0, ROWS - 1)),
    st.dictionaries(st.integers(0, ROWS - 1), st.integers(1, 4)),
    st.integers(0, 5),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)
def test_mixing_ranks_the_union_of_both_sources_by_the_documented_score(
    vectors: list[list[int]], allowed: set[int], counts: dict[int, int], retrieved: int, towers: float
):
    customer = (1.0, -0.5)
    vectors_ND = np.array(vectors, np.float32)
    inner = {row: sum(a * b for a, b in zip(vectors[row], customer, strict=True)) for row in range(ROWS)}
    nearest = sorted(allowed, key=lambda row: (-inner[row], row))[:retrieved]
    own = sorted(counts)
    total = sum(counts.values())
    again = Shares(np.array(own, np.int64), np.array([counts[row] / total for row in own], np.float32))
    eligible = EligibleSet.of(np.array(sorted(allowed), np.int64), FOREVER)
    rows_1K = np.array([nearest + [-1] * (5 - len(nearest))])
    inner_1K = np.array([[inner[row] if row >= 0 else -np.inf for row in rows_1K[0].tolist()]], np.float32)
    customer_1D = np.array([customer], np.float32)
    found = Mixer(vectors_ND).mix(
        [again], Candidates(rows_1K, inner_1K, ("exact",)), [eligible], customer_1D, towers, most=ROWS
    )

    candidates = set(nearest) | (set(own) & allowed)
    mass = sum(math.exp(inner[row]) for row in nearest)
    score = {
        row: (1 - towers) * counts.get(row, 0) / max(total, 1)
        + towers * (math.exp(inner[row]) / mass if nearest else 0.0)
        for row in candidates
    }
    rows, scores = found.rows_BK[0].tolist(), found.scores_BK[0].tolist()
    assert set(rows[len(candidates) :]) <= {-1}
    rows, scores = rows[: len(candidates)], scores[: len(candidates)]
    assert set(rows) == candidates
    assert scores == pytest.approx([score[row] for row in rows], rel=1e-4)
    ranks = list(zip((-one for one in scores), rows, strict=True))
    assert ranks == sorted(ranks)  # the best first, equal scores by row
