"""What the ranker's network reads: facts aged to the moment, logarithms of counts and days, ratios of them.

The same in training and in service. Letters: M candidates, F facts, R ratios, X inputs.
"""

import math

import numpy as np
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.ranking.features import COUNTED, FACTS
from embeddings.ranking.profile import DECAYS, GROUP_DECAY
from embeddings.ranking.statistics import RHYTHMS

_SLOW = (
    "own_slow",
    "own_here",
    "own_hour",
    "visits",
    "visits_here",
    "visits_hour",
    *(f"{group}_slow" for group in RHYTHMS),
)
_DECAY = (
    dict.fromkeys(_SLOW, DECAYS[0])
    | {"own_middling": DECAYS[1], "own_fast": DECAYS[2]}
    | {f"{group}_lately": GROUP_DECAY for group in RHYTHMS}
)
_AGEING = ("own_since", *(f"{group}_since" for group in RHYTHMS))
_RATIOS = (
    ("own_since", "own_gap", 0.5),
    ("own_slow", "visits", 0.5),
    ("own_here", "visits_here", 0.5),
    ("visits_here", "visits", 0.1),
    ("own_hour", "visits_hour", 0.5),
    ("own_lines", "lines", 1.0),
    ("lines_hour", "lines", 1.0),
    *((f"{group}_since", f"{group}_gap", 0.5) for group in RHYTHMS),
    *((f"{group}_slow", "visits", 0.5) for group in RHYTHMS),
    *(("own_slow", f"{group}_slow", 0.1) for group in RHYTHMS),
)
"""What is due, how often per visit, and what share of a group: a fact, over another one, which is at least so much."""

_MOST = 50.0
_ABOVE_RATIOS, _ABOVE_SHARES = 0.02, 1e-6
"""What is added before a logarithm is taken, so that it is one of something."""

_PRIOR = 100.0
"""Purchases' worth of the shares of all locations in those of one."""

_SHARES = ("product_share", *(f"product_{group}_share" for group in RHYTHMS))
_SHARE_SCALE = 1e5
"""What brings shares of all purchases among the sizes of counts."""

INPUTS = len(FACTS) + len(_RATIOS) + 2
"""How many there are."""

_LOGARITHMS = COUNTED + len(_RATIOS) + 1
"""How many of them, the first ones, are logarithms."""

_inputs = kernel.Inputs(
    [math.log(_DECAY.get(name, 1.0)) for name in FACTS],
    [float(name in _AGEING) for name in FACTS],
    [_SHARE_SCALE if name in _SHARES else 1.0 for name in FACTS[:COUNTED]],
    [(FACTS.index(above), FACTS.index(below), least) for above, below, least in _RATIOS],
    _MOST,
    _ABOVE_RATIOS,
    _PRIOR,
    _ABOVE_SHARES,
    [FACTS.index(name) for name in ("away", "popular_here", "sold_here", "product_share", "inner", "retrieved")],
)


def derive(facts_MF: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the network reads (M, X) of some candidates' facts (M, F).

    The logarithms of one and each count, of each ratio and of the share of the location's purchases, then the facts
    that are no counts, and how far the inner product lies above what was retrieved.
    """
    inputs_MX = _inputs.derive(facts_MF)
    logarithms_ML = inputs_MX[:, :_LOGARITHMS]
    np.log(logarithms_ML, out=logarithms_ML)
    return inputs_MX
