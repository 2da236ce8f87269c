from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from embeddings.catalogue.changes import LocationState, PlacementState, checked, faults_of
from embeddings.catalogue.placement import Pin, span_of

DEMO = Path(__file__).parents[4] / "benchmarks" / "harness" / "placements.ndjson"


def moment(hour: int, minute: int = 0, month: int = 1) -> int:
    return int(datetime(2025, month, 15, hour, minute, tzinfo=UTC).timestamp())


def test_a_span_holds_its_first_moment_and_not_its_last():
    day, night = span_of("09:30-17:00"), span_of("22:00-08:00")
    assert [day.holds(moment(*at), "UTC") for at in ((9, 29), (9, 30), (16, 59), (17, 0))] == [False, True, True, False]
    assert [night.holds(moment(*at), "UTC") for at in ((21, 59), (22, 0), (0, 0), (7, 59), (8, 0))] == [
        False,
        *[True] * 3,
        False,
    ]


def test_a_span_goes_by_the_clock_of_the_zone_in_summer_and_in_winter():
    night = span_of("22:00-08:00")
    assert night.holds(moment(7, 0), "UTC")
    assert not night.holds(moment(7, 0), "Europe/Oslo"), "eight in the morning in winter"
    assert not night.holds(moment(6, 0, month=7), "Europe/Oslo"), "and in summer"
    assert night.holds(moment(6, 0), "Europe/Oslo")


@pytest.mark.parametrize(
    "text", ["", "22-8", "24:00-08:00", "22:60-08:00", "22:00-22:00", "22:00-08:00\n", "٢٢:00-08:00"]
)
def test_what_is_no_span_is_refused(text: str):
    faults = faults_of(PlacementState(id="a", quiet_hours=text))
    assert [fault.field for fault in faults] == ["quiet_hours"]


@pytest.mark.parametrize("zone", ["", "Europe", "Europe/Olso", "../etc/passwd", "/etc/localtime", "CEST", "a" * 300])
def test_what_is_no_time_zone_is_refused(zone: str):
    assert [fault.field for fault in faults_of(LocationState(id="a", time_zone=zone))] == ["time_zone"]
    assert [fault.field for fault in faults_of(PlacementState(id="a", time_zone=zone))] == ["time_zone"]


def test_ids_that_come_as_integers_are_text():
    pin = '{"kind": "offer", "id": 3, "position": 1}'
    body = f'{{"id": 7, "excluded": [1], "fallback": [2], "kinds": ["offer"], "pinned": [{pin}]}}'
    found = msgspec.json.decode(body, type=PlacementState)
    pins = (Pin(kind="offer", id="3", position=1),)
    assert found == PlacementState(id="7", excluded=("1",), fallback=("2",), kinds=("offer",), pinned=pins)


def test_the_placements_of_the_demo_are_right():
    found = [msgspec.json.decode(line, type=PlacementState) for line in DEMO.read_bytes().splitlines()]
    assert [checked(one) for one in found] == found
    assert len({one.id for one in found}) == 5
