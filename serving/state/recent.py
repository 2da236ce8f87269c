"""A customer's events since the snapshot, in the order of arrival; the history they make depends on nothing else.

Letter: E events.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from embeddings.catalogue.columns import Catalogue
from embeddings.customer.history import EVENT, EVENT_CODES, LONGEST_HISTORY, PURCHASE, UNSAID, Events
from embeddings.vocabulary import Vocabulary
from serving.state.event import Row

_SURELY_SECONDS = 300
"""How long an event that lies ahead of the clock has happened before its arrival, as far as its order among the
customer's others allows."""


@dataclass(frozen=True, eq=False)
class Recent:
    """Some events; at most ``LONGEST_HISTORY``, the newest to arrive.

    Attributes:
        events_E: records as their senders said, in the order of arrival.
        seqs_E: int64, ascending: their places in the order of arrival of all events.
        arrived_E: int64; the moment of arrival of an event that lay ahead of the clock then, else 0.
        unknown: what events name and the catalogue does not know, as kinds and ids.
    """

    events_E: Events
    seqs_E: NDArray[np.int64]
    arrived_E: NDArray[np.int64]
    unknown: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, rows: Iterable[Row], catalogue: Catalogue) -> Self:
        """Return events in a catalogue's rows; what the catalogue does not know becomes -1.

        Args:
            rows: distinct events in any order.
            catalogue: whose rows are spoken in.
        """
        ordered = sorted(rows)
        products, offers, locations = (
            _Rows(one.ids) for one in (catalogue.products, catalogue.offers, catalogue.locations)
        )
        events_E = _records(ordered, products, offers, locations, catalogue)
        looked_up = (("product", products), ("offer", offers), ("location", locations))
        return cls(
            events_E,
            np.array([row.seq for row in ordered], np.int64),
            np.array([row.arrived for row in ordered], np.int64),
            frozenset((kind, one) for kind, found in looked_up for one in found.unknown()),
        )

    def __len__(self) -> int:
        return len(self.seqs_E)

    @property
    def floor(self) -> int:
        """Return the place in the order of arrival before which no event counts any more; 0 while there is room."""
        return int(self.seqs_E[0]) if len(self) == LONGEST_HISTORY else 0

    def merged(self, others: Iterable["Recent"]) -> "Recent":
        """Return these events and others, each once; at most ``LONGEST_HISTORY``, the newest to arrive."""
        parts = [self, *(one for one in others if len(one))]
        if len(parts) == 1:
            return self
        seqs, first = np.unique(np.concatenate([one.seqs_E for one in parts]), return_index=True)
        kept = first[-LONGEST_HISTORY:]
        return Recent(
            np.concatenate([one.events_E for one in parts])[kept],
            seqs[-LONGEST_HISTORY:],
            np.concatenate([one.arrived_E for one in parts])[kept],
            frozenset[tuple[str, str]]().union(*(one.unknown for one in parts)),
        )

    def beyond(self, older: "Recent") -> "Recent | None":
        """Return the events that an older collection lacks, if a history of that can be extended by them; else None.

        It can if all of them arrived later, and none lay ahead of the clock: where such an event belongs depends on the
        others.
        """
        size = len(older)
        if not np.array_equal(self.seqs_E[:size], older.seqs_E) or self.arrived_E[size:].any():
            return None
        return Recent(self.events_E[size:], self.seqs_E[size:], self.arrived_E[size:], self.unknown)

    def in_time(self) -> Events:
        """Return the records, oldest first; those of one second in the order of arrival.

        Nobody knows when an event that lies ahead of the clock happened, but it was after what had arrived before it
        and before what arrives after it. So it takes the moment of the newest one that had arrived, or one some minutes
        before its arrival: an event that comes later and says it is of now, by another clock, lies after it.
        """
        at_E = self.events_E["at"]
        ahead_E = self.arrived_E > 0
        events_E = self.events_E
        if ahead_E.any():
            least_E = np.where(ahead_E, self.arrived_E - _SURELY_SECONDS, at_E)
            after_E = np.minimum(self.arrived_E, np.maximum.accumulate(least_E))
            at_E = np.where(ahead_E, after_E, at_E)
            events_E = events_E.copy()
            events_E["at"] = at_E
        return events_E[np.argsort(at_E, kind="stable")]


def _records(
    rows: Iterable[Row], products: "_Rows", offers: "_Rows", locations: "_Rows", catalogue: Catalogue
) -> Events:
    """Return events as records in a catalogue's rows, in their order; what the catalogue does not know becomes -1."""
    channels: dict[str | None, int] = {name: code for code, name in enumerate(catalogue.channels)}
    codes = EVENT_CODES | dict.fromkeys(catalogue.targets, PURCHASE)
    return np.array(
        [
            (
                at,
                products[product],
                offers[offer],
                locations[location],
                quantity,
                np.nan if value is None else value,
                codes[kind],
                channels.get(channel, -1),
                UNSAID,
            )
            for _, _, at, kind, product, offer, location, channel, quantity, value in rows
        ],
        dtype=EVENT,
    )


class _Rows(dict[str | None, int]):
    """The rows of ids, each looked up once however many events name it; -1 for none and for one that is unknown."""

    def __init__(self, ids: Vocabulary) -> None:
        super().__init__({None: -1})
        self._ids = ids

    def unknown(self) -> list[str]:
        """Return the ids looked up so far that have no row."""
        return [one for one, row in self.items() if one is not None and row < 0]

    def __missing__(self, one: str | None) -> int:
        row = None if one is None else self._ids.row(one)
        self[one] = found = -1 if row is None else row
        return found
