"""The ways in which requests ask, and examples asked so: what a request would know of a visit, and nothing else.

A purchase says where and when it was made. A request on the web names no place, one from a phone names a point and a
radius, and a message goes out ahead of the visit. A model that only ever saw the true place and moment would take what
such requests lack for something that it knows.

Letters: M locations.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from itertools import accumulate

import haversine
import numpy as np
from numpy.typing import NDArray

from embeddings.catalogue.columns import Catalogue, ChannelRule
from embeddings.catalogue.eligibility import Eligibility, Place
from embeddings.customer.history import History
from embeddings.customer.tower_input import Situation
from training.config import WaysConfig
from training.examples import Example, allowed_in

_WITHIN = (2, 5, 10, 20)
"""How many locations the radius of an example reaches; few numbers, as for each what may be shown is kept in memory."""


class Way(StrEnum):
    """A way in which a request asks; ``NOVEL`` is for what the customer has never bought, whatever the place."""

    AT_PLACE = "at_place"
    WITHOUT_PLACE = "without_place"
    WITHIN_RADIUS = "within_radius"
    AHEAD = "ahead"
    NOVEL = "novel"


class Ways:
    """Turns examples into what requests would know that ask in other ways.

    Args:
        catalogue: as observed before the examples.
        config: how often each way is asked in.
    """

    def __init__(self, catalogue: Catalogue, config: WaysConfig) -> None:
        self.catalogue = catalogue
        ahead = [name in catalogue.ahead for name in catalogue.channels]
        everything = [rule == ChannelRule.EVERYTHING for rule in catalogue.channels.values()]
        self._open = [code for code, all_shown in enumerate(everything) if all_shown and not ahead[code]]
        self._ahead = [code for code, is_ahead in enumerate(ahead) if is_ahead]
        self._placed_M = np.flatnonzero(np.isfinite(catalogue.locations.coordinates_M2).all(axis=1))
        self._around: dict[int, NDArray[np.int64]] = {}
        self.shares = {
            Way.WITHOUT_PLACE: config.without_place if len(catalogue.locations.ids) else 0.0,
            Way.WITHIN_RADIUS: config.within_radius if len(self._placed_M) >= _WITHIN[0] else 0.0,
            Way.AHEAD: config.ahead if self._ahead else 0.0,
        }
        self.shares = {Way.AT_PLACE: 1 - sum(self.shares.values()), **self.shares}
        self._ways, self._bounds = list(self.shares), list(accumulate(self.shares.values()))[:-1]

    @cached_property
    def _eligibility(self) -> Eligibility:
        return Eligibility(self.catalogue)

    def drawn(self, examples: Sequence[Example], begin: int, random: np.random.Generator) -> list[Example]:
        """Return the examples, each asked in a way drawn by the shares.

        One that cannot be asked in the way drawn for it is asked at its place.

        Args:
            examples: as the visits happened.
            begin: when their window began, in seconds since 1970 UTC.
            random: draws.
        """
        ways = [self._draw(random) for _ in examples]
        return [self._asked(one, way, begin, random) or one for one, way in zip(examples, ways, strict=True)]

    def each(self, examples: Sequence[Example], begin: int, seed: int) -> Mapping[Way, list[Example]]:
        """Return the examples that can be asked in each way that has a share; arguments as for ``drawn``."""
        return {
            way: [asked for one in examples if (asked := self._asked(one, way, begin, random)) is not None]
            for way, share in self.shares.items()
            if share or way == Way.AT_PLACE
            for random in [np.random.default_rng([seed, begin])]
        }

    def situation(self, situation: Situation, past: History, random: np.random.Generator) -> Situation:
        """Return a visit's situation as a request asks that is drawn by the shares, and as the customer tower reads it.

        To the tower a radius says as much as no place: the location is unknown.
        """
        place = Place((situation.location,) if situation.location >= 0 else None)
        way = self._draw(random)
        if way == Way.AHEAD:
            return situation._replace(channel=_one_of(self._ahead, random), ahead=True).at(Place(None), past.purchases)
        if way == Way.AT_PLACE or not place.rows:
            return situation.at(place, past.purchases)
        channel = self._channel(situation, random) if way == Way.WITHOUT_PLACE else situation.channel
        return situation._replace(channel=channel).at(Place(None), past.purchases)

    def _draw(self, random: np.random.Generator) -> Way:
        return self._ways[bisect_right(self._bounds, random.random())]

    def _asked(self, example: Example, way: Way, begin: int, random: np.random.Generator) -> Example | None:
        """Return the example asked in a way; None if it cannot be."""
        match way:
            case Way.AT_PLACE:
                return example
            case Way.WITHOUT_PLACE:
                situation = example.situation._replace(channel=self._channel(example.situation, random))
                return self._moved(example, situation, Place(None))
            case Way.AHEAD:
                situation = example.situation._replace(channel=_one_of(self._ahead, random), moment=begin, ahead=True)
                return self._moved(example, situation, Place(None))
            case Way.NOVEL:
                return None  # `for_novel` asks it, which knows all that was bought in the window
            case Way.WITHIN_RADIUS:
                return self._within(example, _one_of(_WITHIN, random))

    def _channel(self, situation: Situation, random: np.random.Generator) -> int:
        """Return the channel of a request without a place: one that shows everything, if there is any."""
        return _one_of(self._open, random) if self._open else situation.channel

    def _within(self, example: Example, count: int) -> Example | None:
        """Return the example asked within a radius that reaches so many locations, round the customer's last one."""
        visited_E = example.past.events_E["location"]
        placed_E = visited_E[np.isin(visited_E, self._placed_M)]
        if not len(placed_E):
            return None
        rows = self._nearest(int(placed_E[-1]))[:count]
        return self._moved(example, example.situation, Place(tuple(rows.tolist())))

    def _nearest(self, centre: int) -> NDArray[np.int64]:
        """Return the nearest locations to one, itself first."""
        if centre not in self._around:
            coordinates_M2 = self.catalogue.locations.coordinates_M2
            kilometres_M = haversine.haversine_vector(
                coordinates_M2[[centre]], coordinates_M2[self._placed_M], comb=True
            )[:, 0]
            self._around[centre] = self._placed_M[np.argsort(kilometres_M, kind="stable")[: _WITHIN[-1]]]
        return self._around[centre]

    def _moved(self, example: Example, situation: Situation, place: Place) -> Example | None:
        """Return the example asked in a situation at a place, for what may be shown there; None if that is nothing."""
        situation = situation.at(place, example.past.purchases)
        eligible = allowed_in(situation, place, self._eligibility)
        bought = np.fromiter(example.bought, np.int64)
        bought = bought[eligible.contains(bought)]
        if not len(bought):
            return None
        return example._replace(situation=situation, place=place, eligible=eligible, bought=frozenset(bought.tolist()))


def _one_of(codes: Sequence[int], random: np.random.Generator) -> int:
    return codes[int(random.integers(len(codes)))]
