"""What the ranker's network reads: features aged to the moment, logarithms of counts and days, ratios of them.

The same in training and in service. Letters: M candidates, F features, R ratios, X inputs.
"""

import math

import numpy as np
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.ranking.features import COUNTED, RANKER_FEATURES
from embeddings.ranking.profile import DECAYS, GROUP_DECAY
from embeddings.ranking.statistics import GROUPINGS

_SLOW = (
    "own_slow",
    "own_here",
    "own_hour",
    "visits",
    "visits_here",
    "visits_hour",
    *(f"{group}_slow" for group in GROUPINGS),
)
_DECAY = (
    dict.fromkeys(_SLOW, DECAYS[0])
    | {"own_middling": DECAYS[1], "own_fast": DECAYS[2]}
    | {f"{group}_lately": GROUP_DECAY for group in GROUPINGS}
)
_AGEING = ("own_since", *(f"{group}_since" for group in GROUPINGS))
_RATIOS = (
    ("own_since", "own_gap", 0.5),
    ("own_slow", "visits", 0.5),
    ("own_here", "visits_here", 0.5),
    ("visits_here", "visits", 0.1),
    ("own_hour", "visits_hour", 0.5),
    ("own_basket_size", "basket_size", 1.0),
    ("basket_size_hour", "basket_size", 1.0),
    *((f"{group}_since", f"{group}_gap", 0.5) for group in GROUPINGS),
    *((f"{group}_slow", "visits", 0.5) for group in GROUPINGS),
    *(("own_slow", f"{group}_slow", 0.1) for group in GROUPINGS),
)
"""What is due, how often per visit, and what share of a group: one feature over another, which is at least so much."""

_MOST = 50.0
_ABOVE_RATIOS, _ABOVE_SHARES = 0.02, 1e-6
"""What is added before a logarithm is taken, so that it is one of something."""

_PRIOR = 100.0
"""Purchases' worth of the shares of all locations in those of one."""

_SHARES = ("product_share", *(f"product_{group}_share" for group in GROUPINGS))
_SHARE_SCALE = 1e5
"""What brings shares of all purchases among the sizes of counts."""

TRANSFORMED = len(RANKER_FEATURES) + len(_RATIOS) + 2
"""How many there are."""

_LOGARITHMS = COUNTED + len(_RATIOS) + 1
"""How many of them, the first ones, are logarithms."""

_transform = kernel.FeatureTransform(
    [math.log(_DECAY.get(name, 1.0)) for name in RANKER_FEATURES],
    [float(name in _AGEING) for name in RANKER_FEATURES],
    [_SHARE_SCALE if name in _SHARES else 1.0 for name in RANKER_FEATURES[:COUNTED]],
    [(RANKER_FEATURES.index(above), RANKER_FEATURES.index(below), least) for above, below, least in _RATIOS],
    _MOST,
    _ABOVE_RATIOS,
    _PRIOR,
    _ABOVE_SHARES,
    [
        RANKER_FEATURES.index(name)
        for name in ("away", "popular_here", "sold_here", "product_share", "inner", "retrieved")
    ],
)


def transform(features_MF: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the network reads (M, X) of some candidates' features (M, F).

    The logarithms of one and each count, of each ratio and of the share of the location's purchases, then the features
    that are no counts, and how far the inner product lies above what was retrieved.
    """
    transformed_MX = _transform.transform(features_MF)
    logarithms_ML = transformed_MX[:, :_LOGARITHMS]
    np.log(logarithms_ML, out=logarithms_ML)
    return transformed_MX
