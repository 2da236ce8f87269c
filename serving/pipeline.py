"""One batch from requests to rankings: retrieve, then rank."""

from collections.abc import Generator, Sequence

from serving.rank import rank
from serving.ranked import Ranked
from serving.retrieve import RankRequest, retrieve

_ALL, _SLICE = 2**31, 500
"""How many candidates are ranked at a time."""


def answer_batch(requests: Sequence[RankRequest]) -> list[list[Ranked]]:
    """Return the ranking of each request.

    Requests of one batch may have pinned different releases while one is being swapped, or want more candidates.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault((id(request.view.release), request.candidates), []).append(place)
    answers: list[list[Ranked]] = [[]] * len(requests)
    for places in groups.values():
        some = [requests[place] for place in places]
        for place, answer in zip(places, _finished(rank(some, retrieve(some), _ALL)), strict=True):
            answers[place] = answer
    return answers


def answer_in_pieces(request: RankRequest) -> Generator[None, None, list[Ranked]]:
    """Rank one large request, yielding after every slice of candidates; return its ranking."""
    (answer,) = yield from rank([request], retrieve([request]), _SLICE)
    return answer


def _finished(pieces: Generator[None, None, list[list[Ranked]]]) -> list[list[Ranked]]:
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            return done.value
