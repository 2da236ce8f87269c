"""Answers to nobody in particular: the same for everybody who asks the same within an hour, so worked out once."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable

from serving.rank import Ranked
from serving.retrieve import Ask

_HOUR = 3_600
_KEPT = 4_096


class Strangers:
    """Remembers answers. Not safe for several threads: it belongs to the event loop."""

    def __init__(self) -> None:
        self._remembered: OrderedDict[Hashable, list[Ranked]] = OrderedDict()

    async def of(self, ask: Ask, rank: Callable[[Ask], Awaitable[list[Ranked]]]) -> list[Ranked]:
        """The answer as of the beginning of the hour; what may be shown is that of the very moment.

        Args:
            ask: of somebody without a history or attributes.
            rank: works an answer out.
        """
        at_hour = ask.situation.moment // _HOUR * _HOUR
        ask = ask._replace(situation=ask.situation._replace(moment=at_hour))
        offers = None if ask.offers is None else ask.offers.eligible
        sets = tuple(None if one is None else one.fingerprint for one in (ask.products, offers, ask.allowed))
        how = (ask.situation, ask.place, ask.limit, ask.excluded, ask.explain, ask.novel, ask.every)
        key = (ask.model.version, sets, how)
        found = self._remembered.get(key)
        if found is None:
            found = self._remembered[key] = await rank(ask)
            if len(self._remembered) > _KEPT:
                self._remembered.popitem(last=False)
        else:
            self._remembered.move_to_end(key)
        return found
