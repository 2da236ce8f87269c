"""Answers to nobody in particular: the same for everybody who asks the same within an hour, so worked out once."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from embeddings.remembered import Remembered
from serving.retrieve import RankRequest
from serving.slot import Model

_HOUR = 3_600
REMEMBERED_BYTES = 32 * 2**20
"""How much memory remembered answers and the questions to them may take."""

Answered = TypeVar("Answered")


class AnonymousCache(Generic[Answered]):
    """Remembers answers as long as their model is there. Not safe for several threads: it belongs to the event loop."""

    def __init__(self) -> None:
        self._remembered: WeakKeyDictionary[Model, Remembered[Answered]] = WeakKeyDictionary()

    async def of(self, ask: RankRequest, answer: Callable[[RankRequest], Awaitable[Answered]]) -> Answered:
        """The answer as of the beginning of the hour; what may be shown is that of the very moment.

        It is remembered unless the request asks for something of its own.

        Args:
            ask: of somebody without a history or attributes.
            answer: works an answer out.
        """
        at_hour = ask.situation.moment // _HOUR * _HOUR
        ask = ask._replace(situation=ask.situation._replace(moment=at_hour))
        if ask.own:
            return await answer(ask)
        offers = None if ask.offers is None else ask.offers.eligible
        sets = tuple(None if one is None else one.fingerprint for one in (ask.products, offers))
        key = (sets, ask.situation, ask.place, ask.limit, ask.explain, ask.novel)
        remembered = self._remembered.get(ask.model)
        if remembered is None:
            remembered = self._remembered[ask.model] = Remembered(REMEMBERED_BYTES)
        found = remembered.find(key)
        return remembered.keep(key, await answer(ask)) if found is None else found
