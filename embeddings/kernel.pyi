"""The inner loops of candidates, profiles and facts: kernel.cpp says what each computes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embeddings.history import Events

_F32 = NDArray[np.float32]
_I32 = NDArray[np.int32]
_I64 = NDArray[np.int64]

def inner_products(queries_BD: _F32, vectors_BKD: _F32) -> _F32: ...
def best(queries_BD: _F32, vectors_ND: _F32, rows_BP: _I64, kept: int) -> tuple[_I64, _F32]: ...

class Copy:
    def __init__(self, turned_ND: _F32, rows_N: _I32 | _I64, catalogue: int) -> None: ...
    def among(self, members: Members) -> Copy: ...
    @property
    def nbytes(self) -> int: ...
    @staticmethod
    def bytes_of(rows: int, dimensions: int) -> int: ...

def longest(vectors_ND: _F32) -> float: ...
def nearest(
    queries_BD: _F32,
    axes_DD: _F32 | None,
    vectors_ND: _F32,
    sets: Sequence[tuple[Copy | _I32 | _I64, Members | None, Sequence[int]]],
    wanted: int,
    isa: str | None = None,
) -> tuple[_I64, _F32]: ...
def isas() -> list[str]: ...
def leading(
    scores_K: _F32, rows_K: _I64, sources_K: _I64, held_back_K: NDArray[np.bool_] | None, most: int
) -> list[tuple[int, int, float, int]]: ...
def log_sum_exp(values_K: _F32) -> float: ...

class Members:
    def __init__(self, rows_N: _I32 | _I64) -> None: ...
    def contains(self, rows_R: _I64) -> NDArray[np.bool_]: ...
    @property
    def size(self) -> int: ...
    def without(self, rows_R: _I64) -> Members: ...

class Customer:
    def __init__(
        self,
        rows_R: _I64,
        own_RC: _F32,
        groups: Sequence[tuple[_I32, _F32]],
        alike: tuple[_I64, _F32],
        taste_D: _F32,
    ) -> None: ...

def largest(scored: tuple[_I64, _F32], eligible: Members, most: int) -> _I64: ...
def again(customer: Customer, here_R: _F32, more: float, eligible: Members, most: int) -> _I64: ...
def due(customer: Customer, aged: float, eligible: Members, most: int) -> _I64: ...
def foremost(weights_R: _F32, most: int) -> _I64: ...
def merged(lists: Sequence[_I64]) -> tuple[_I64, _I64]: ...
def taste(rows_R: _I64, times_R: _I64, products_ND: _F32, gram_DD: _F32) -> _F32: ...
def around(rows_R: _I64, weights_R: _F32, near_NT: _I32, cosines_NT: _F32) -> tuple[_I64, _F32]: ...
def inserted(events_E: Events, added_E: Events) -> Events: ...
def purchased(events_E: Events, offsets: _I64) -> NDArray[np.bool_]: ...
def purchases(events_E: Events, decay: float) -> tuple[_I64, _I64, ByVisit, int]: ...
def times_bought(rows_R: _I64, times_R: _I64, asked: Sequence[int]) -> list[int]: ...
def newest_of(events_E: Events, types: Sequence[bool]) -> int: ...
def products_since(events_E: Events, after: int, types: Sequence[bool]) -> _I64: ...
def offers_since(events_E: Events, after: int, types: Sequence[bool]) -> _I64: ...
def visit(events_E: Events, after: int, looking: Sequence[bool]) -> tuple[_I64, _I64]: ...
def any_tells(events_E: Events, types: Sequence[bool]) -> bool: ...
def latest(
    events_BE: Sequence[Events], types: Sequence[bool], moments_B: Sequence[int], most: int
) -> tuple[_I64, _I64, _F32]: ...
def gather(vectors_ND: _F32, rows_BL: _I64) -> _F32: ...

class ByVisit:
    def figures(
        self,
        rows_R: _I64,
        products_NP: _F32,
        gap: int,
        codes_NQ: _I32,
        decays: tuple[float, float],
        group_decay: float,
        never_days: float,
        prior_days: float,
        never: tuple[float, float, float, float],
        usual_gap: float,
    ) -> tuple[_F32, list[tuple[_I32, _F32]], float, float, float]: ...
    def at(self, location: int) -> tuple[_F32, float]: ...
    def at_hour(self, moment: int, seconds: float, other_days: float) -> tuple[_F32, float, float]: ...

class Facts:
    def __init__(
        self,
        products_NP: _F32,
        rhythms_NQ: _I32,
        lifts_GG: _F32,
        vectors_ND: _F32,
        tastes_NT: _F32,
        offsets: _I64,
        carried_L: _I32,
        popular_L: _F32,
        month_L: _F32,
        gap: int,
        wide: int,
    ) -> None: ...
    def read(
        self,
        customer: Customer,
        here_R: _F32,
        hour_R: _F32,
        rows_K: _I64,
        customer_D: _F32,
        location: int,
        promoted: _I32,
        together: tuple[_I64, _F32],
        meant: _I64,
        looked: _I64,
        context: Sequence[float],
        facts_KF: _F32,
    ) -> None: ...

class Inputs:
    def __init__(
        self,
        decays_F: Sequence[float],
        ages_F: Sequence[float],
        scales_C: Sequence[float],
        ratios: Sequence[tuple[int, int, float]],
        most: float,
        above_ratios: float,
        prior: float,
        above_shares: float,
        columns: Sequence[int],
    ) -> None: ...
    def derive(self, facts_MF: _F32) -> _F32: ...
