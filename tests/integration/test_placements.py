"""Placements over HTTP: declared at one server's management API, they count in the answers of two servers."""

import tempfile
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from tests.integration.server import Postgres, Server, copy_store, eventually, free_port, ids
from tests.integration.test_admin import JSON, at, client_of, done
from tests.integration.test_decisions import found
from tests.integration.test_follower import states as world_states
from tests.integration.test_follower import write_all
from tests.world import UNTIL


class Slots:
    """Two servers, the management API of the first, and the placements that a test has declared."""

    def __init__(self, servers: list[Server], admin: httpx.Client) -> None:
        self.servers = servers
        self.admin = admin

    def put(self, kind: str, one: str, **fields: Any) -> int:
        seq = done(self.admin.put(at(kind, one), json=fields))["seq"]
        self.see(seq)
        return seq

    def see(self, seq: int) -> None:
        request = {"context": {"channel": "web"}, "at_least": seq}
        for server in self.servers:
            eventually(lambda: server.client.post("/v1/recommend", json=request).status_code == 200, "the change")  # noqa: B023

    def ask(self, customer: str | None = "c017", **rest: Any) -> dict[str, Any]:
        """The answer, which both servers give alike."""
        first, second = (one.recommend(customer, **rest) for one in self.servers)
        assert what(first) == what(second)
        return first

    def refused(self, field: str, **rest: Any) -> str:
        answer = self.servers[1].client.post("/v1/recommend", json={"context": {"channel": "web"}, **rest})
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
        return answer.json()["detail"]


def what(answer: dict[str, Any]) -> Any:
    if "placements" in answer:
        return {name: what(one) for name, one in answer["placements"].items()}
    return [(one["kind"], one["id"]) for one in answer["items"]]


@pytest.fixture(scope="module")
def running(
    published: tuple[BundleStore, Manifest], postgres: Postgres, anybodys: Path
) -> Generator[tuple[list[Server], httpx.Client]]:
    url, port = postgres.database(), free_port()
    servers = [
        Server(copy_store(published[0], Path(tempfile.mkdtemp(dir=anybodys))), "--database", url, *options)
        for options in (("--admin-port", str(port)), ("--workers", "2"))
    ]
    write_all(url, *world_states())
    with client_of(servers[0]) as admin:
        yield servers, admin
    for one in servers:
        one.stop()


@pytest.fixture
def slots(running: tuple[list[Server], httpx.Client]) -> Generator[Slots]:
    servers, admin = running
    slots = Slots(servers, admin)
    slots.see(done(admin.get("/v1/changes", params={"limit": 1, "after": 0}))["items"][0]["seq"])
    yield slots
    for item in done(admin.get("/v1/placements"))["items"]:
        slots.see(done(admin.delete(at("placements", item["body"]["id"])))["seq"])


def test_a_name_is_a_label_until_a_placement_is_declared(slots: Slots):
    plain = slots.ask()
    assert what(slots.ask(placement="anything")) == what(plain)
    slots.put("placements", "web-home", slots=3)
    assert "did you mean web-home?" in slots.refused("placement", placement="web-hom")
    answer = slots.ask(placement="web-home")
    assert (answer["placement"], what(answer)) == ("web-home", what(plain)[:3])
    assert what(slots.ask()) == what(plain)


def test_a_placement_gives_the_defaults_and_a_request_narrows_them(slots: Slots):
    slots.put("placements", "till", slots=4, kinds=["product", "offer"], channels=["web", "store"])
    assert what(slots.ask(placement="till")) == what(slots.ask(kinds=["product", "offer"], limit=4))
    assert {kind for kind, _ in what(slots.ask(placement="till", kinds=["offer"]))} == {"offer"}
    assert len(slots.ask(placement="till", kinds=["offer"], limit=1)["items"]) == 1
    slots.refused("limit", placement="till", limit=5)
    assert "web, store" in slots.refused("context.channel", placement="till", context={"channel": "email"})
    slots.put("placements", "tips", kinds=["offer"])
    slots.refused("kinds[1]", placement="tips", kinds=["offer", "product"])
    slots.refused("filters", placement="tips", filters={"brand": ["b1"]})
    slots.refused("placements[1]", placements=["tips", "tipps"])
    slots.refused("placements", placements=["tips", "tips"])
    slots.refused("placement", placements=["tips"], placement="tips")


def test_pins_exclusions_and_diversity(slots: Slots):
    best = [one for _, one in what(slots.ask(limit=20))]
    pins = [{"kind": "product", "id": "p118", "position": 2}, {"kind": "product", "id": "p000", "position": 1}]
    slots.put("placements", "home", slots=4, pinned=pins, excluded=[best[0]])
    rest = [one for one in best[1:] if one not in ("p000", "p118")]
    shown = slots.ask(placement="home")
    assert ids(shown) == ["p000", "p118", *rest[:2]]
    assert all(0 <= one["score"] <= 1 for one in shown["items"])
    assert ids(slots.ask(placement="home", exclude=["p000"]))[:2] == [rest[0], "p118"]
    slots.put("placements", "home", slots=3, diversity={"attribute": "department"})
    departments = [
        one["attributes"]["department"] for one in slots.ask(placement="home", include=["attributes"])["items"]
    ]
    assert len(set(departments)) == len(departments) >= 2


def test_value_decides_where_the_placement_says_so(slots: Slots):
    always = {"starts": "2020-01-01T00:00:00Z", "ends": "2100-01-01T00:00:00Z"}
    slots.put("offers", "worthless", products=["p001"], value=0.01, **always)
    slots.put("offers", "precious", products=["p001"], value=50, priority=3, **always)
    slots.put("placements", "valued", kinds=["offer"], strategy="value", slots=2)
    items = slots.ask(placement="valued")["items"]
    assert [one["id"] for one in items] == ["precious", "worthless"]
    assert [one["value"] for one in items] == pytest.approx([items[0]["score"] * 150, items[1]["score"] * 0.01])
    for one in ("worthless", "precious"):
        slots.see(done(slots.admin.delete(at("offers", one)))["seq"])


def test_several_placements_in_one_call_repeat_nothing(slots: Slots):
    slots.put("placements", "first", slots=3)
    slots.put("placements", "second", slots=4)
    slots.put("placements", "mixed", slots=5, kinds=["product", "offer"])
    alone = [one for _, one in what(slots.ask(limit=7))]
    for customer in ("c017", None, "nobody"):
        found = slots.ask(customer, placements=["first", "second", "mixed"])["placements"]
        shown = [one for answer in found.values() for one in what(answer)]
        assert len(shown) == len(set(shown)) == 12
    found = slots.ask(placements=["first", "second"])["placements"]
    assert ids(found["first"]) + ids(found["second"]) == alone
    assert found["first"]["recommendation_id"] != found["second"]["recommendation_id"]


def test_fallback_offers_are_shown_where_nothing_else_is_left(slots: Slots):
    slots.put("placements", "narrow", slots=2, fallback=["at-north", "vips", "everyone"])
    nothing: dict[str, Any] = {"placement": "narrow", "items": ["no such product"]}
    answer = slots.ask("c017", location="north", **nothing)
    assert (ids(answer), answer["fallback"]) == (["at-north", "everyone"], True), "c017 is no vip"
    assert ids(slots.ask("c010", location="south", **nothing)) == ["vips", "everyone"]
    assert not slots.ask("c017", placement="narrow")["fallback"]
    assert slots.ask("c017", at=UNTIL - timedelta(days=99), **nothing)["items"] == [], "before all offers"


def test_nothing_is_shown_in_quiet_hours_by_the_clock_of_the_location(slots: Slots):
    slots.put("locations", "tokyo", time_zone="Asia/Tokyo")
    slots.put("placements", "push", quiet_hours="22:00-08:00", time_zone="America/New_York", fallback=["everyone"])
    noon = datetime(2025, 6, 2, 12, 0, tzinfo=UTC)  # 21:00 in Tokyo, 08:00 in New York
    assert slots.ask(placement="push", location="tokyo", at=noon)["items"]
    assert slots.ask(placement="push", at=noon)["items"]
    quiet = slots.ask(placement="push", location="tokyo", at=noon + timedelta(hours=1))
    assert (quiet["items"], quiet["stopped"]["code"], quiet["fallback"]) == ([], "quiet_hours", False)
    assert slots.ask(placement="push", at=noon - timedelta(minutes=1))["stopped"]["code"] == "quiet_hours"


def test_exploration_gives_the_propensity_of_every_item(slots: Slots):
    slots.put("placements", "lab", kinds=["offer"], slots=2, exploration=0.5)
    server = slots.servers[0]
    best = ids(server.recommend("c010", kinds=["offer"], limit=100))
    count, firsts = len(best), set[str]()
    for _ in range(60):
        items = server.recommend("c010", placement="lab")["items"]
        for place, item in enumerate(items):
            left = [one for one in best if one not in [above["id"] for above in items[:place]]]
            expected = 0.5 / (count - place) + 0.5 * (item["id"] == left[0])
            assert item["propensity"] == pytest.approx(expected)
        firsts.add(items[0]["id"])
    assert len(firsts) > 1


def test_what_a_placement_has_shown_is_kept_with_its_propensities(slots: Slots):
    slots.put("placements", "lab", kinds=["offer"], slots=2, exploration=0.5)
    slots.put("placements", "plain", kinds=["product"], slots=2)
    server = slots.servers[1]
    answers = server.recommend("c017", "web", placements=["lab", "plain"])["placements"]
    for name, answer in answers.items():
        shown = found(server, answer["recommendation_id"])
        assert shown["placement"] == name
        assert [(one["id"], one["propensity"]) for one in shown["items"]] == [
            (one["id"], one.get("propensity", 1.0)) for one in answer["items"]
        ]
    assert answers["lab"]["items"][0]["propensity"] < 1


def test_what_is_wrong_with_a_placement_is_named(slots: Slots):
    wrong = {
        "slots": 2,
        "pinned": [
            {"kind": "product", "id": "p001", "position": 1},
            {"kind": "product", "id": "p001", "position": 1},
            {"kind": "offer", "id": "everyone", "position": 3},
        ],
        "quiet_hours": "8-22",
        "time_zone": "Europe/Olso",
    }
    answer = slots.admin.put(at("placements", "wrong"), json=wrong)
    assert answer.status_code == 422
    faults = {one["field"]: one["detail"] for one in answer.json()["errors"]}
    fields = ("pinned[1].position", "pinned[1].id", "pinned[2].position", "pinned[2].kind", "quiet_hours", "time_zone")
    assert set(faults) == set(fields)
    assert "Europe/Oslo" in faults["time_zone"]
    lines = b'{"id": "a", "slots": 0}\n{"id": "b", "fallback": ["nothing"], "channels": ["tv"]}'
    batch = slots.admin.post("/v1/placements:batch", content=lines, headers={"Content-Type": "application/x-ndjson"})
    assert [(one["index"], one["field"]) for one in batch.json()["errors"]] == [
        (0, "slots"),
        (1, "fallback[0]"),
        (1, "channels[0]"),
    ]


def test_a_placement_is_changed_brought_back_and_holds_on_to_what_it_names(slots: Slots):
    first = slots.put("placements", "home", slots=3, fallback=["everyone"])
    second = done(slots.admin.patch(at("placements", "home"), json={"slots": 1}))["seq"]
    slots.see(second)
    assert len(slots.ask(placement="home")["items"]) == 1
    restored = slots.admin.post(f"{at('placements', 'home')}:restore", json={"seq": first}, headers=JSON)
    slots.see(done(restored)["seq"])
    assert len(slots.ask(placement="home")["items"]) == 3
    history = done(slots.admin.get(f"{at('placements', 'home')}/history"))["items"]
    assert [one["body"]["slots"] for one in history[:3]] == [3, 1, 3]
    kept = slots.admin.delete(at("offers", "everyone"))
    assert kept.status_code == 409
    assert "placement 'home'" in kept.json()["detail"]
