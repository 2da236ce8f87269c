"""Answers to anonymous customers: the same for all who ask the same within an hour, so worked out once."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from embeddings.remembered import Remembered
from serving.retrieve import RankRequest
from serving.view import View

_HOUR = 3_600
REMEMBERED_BYTES = 32 * 2**20
"""How much memory remembered answers and the keys to them may take."""

Answered = TypeVar("Answered")


class AnonymousCache(Generic[Answered]):
    """Remembers answers as long as their view is there. Not safe for several threads: it belongs to the event loop."""

    def __init__(self) -> None:
        self._remembered: WeakKeyDictionary[View, Remembered[Answered]] = WeakKeyDictionary()

    async def of(self, request: RankRequest, answer: Callable[[RankRequest], Awaitable[Answered]]) -> Answered:
        """Return the answer as of the beginning of the hour; the items that may be shown are those of this moment.

        The answer is remembered unless the request asks for something of its own.

        Args:
            request: of an anonymous customer, without a history or attributes.
            answer: works an answer out.
        """
        at_hour = request.situation.moment // _HOUR * _HOUR
        request = request._replace(situation=request.situation._replace(moment=at_hour))
        if request.own:
            return await answer(request)
        offers = None if request.offers is None else request.offers.eligible
        sets = tuple(None if one is None else one.fingerprint for one in (request.products, offers))
        key = (sets, request.situation, request.place, request.limit, request.explain, request.novel, request.arranged)
        remembered = self._remembered.get(request.view)
        if remembered is None:
            remembered = self._remembered[request.view] = Remembered(REMEMBERED_BYTES)
        found = remembered.find(key)
        return remembered.keep(key, await answer(request)) if found is None else found
