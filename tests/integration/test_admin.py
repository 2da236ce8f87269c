"""The management API over real HTTP and PostgreSQL: every call, and everything that it refuses."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from tests.integration.server import (
    PATIENCE_SECONDS,
    Postgres,
    Server,
    copy_store,
    eventually,
    free_port,
    lay_beside,
)

NOW = datetime.now(UTC)
JSON, NDJSON = {"Content-Type": "application/json"}, {"Content-Type": "application/x-ndjson"}
STATE = {
    "attributes": {"brand": "b"},
    "price": 2.5,
    "recommendable": True,
    "locations": [],
    "in_stock": True,
    "out_of_stock_at": [],
    "withdrawn_at": [],
}


@pytest.fixture(scope="module")
def managed(
    published: tuple[BundleStore, Manifest], postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Server]:
    store, port = copy_store(published[0], tmp_path_factory.mktemp("managed")), free_port()
    server = Server(store, "--database", postgres.database(), "--admin-port", str(port))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def admin(managed: Server) -> Generator[httpx.Client]:
    """Tests take ids of their own."""
    with client_of(managed) as client:
        yield client


@contextmanager
def client_of(server: Server) -> Generator[httpx.Client]:
    port = server.options[server.options.index("--admin-port") + 1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as client:
        eventually(lambda: _alive(client), "the management API")
        yield client


def _alive(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def fresh(name: str = "x") -> str:
    return f"{name}-{uuid4().hex}"


def at(kind: str, one: str) -> str:
    return f"/v1/{kind}/{quote(one, safe='').replace('.', '%2E')}"


def done(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    return answer.json()


def faults(answer: httpx.Response, status: int = 422) -> list[tuple[int, str]]:
    return [(one["index"], one["field"]) for one in problem(answer, status)["errors"]]


def newest(admin: httpx.Client) -> int:
    """The newest change: what a write that changes nothing answers."""
    return done(admin.post("/v1/products:batch", json=[]))["seq"]


def product(admin: httpx.Client, **fields: Any) -> str:
    one = fresh("p")
    done(admin.put(at("products", one), json=fields))
    return one


def offer_fields(admin: httpx.Client, days: tuple[int, int] = (-1, 1), **fields: Any) -> dict[str, Any]:
    starts, ends = ((NOW + timedelta(days=one)).isoformat() for one in days)
    return {"products": [product(admin)], "starts": starts, "ends": ends, **fields}


def offer(admin: httpx.Client, days: tuple[int, int] = (-1, 1), **fields: Any) -> str:
    one = fresh("o")
    done(admin.put(at("offers", one), json=offer_fields(admin, days, **fields)))
    return one


def test_a_thing_is_created_read_replaced_and_withdrawn(admin: httpx.Client):
    one = fresh()
    path = at("products", one)
    assert problem(admin.get(path), 404)["detail"] == f"the catalogue holds no product {one!r}"
    created = admin.put(path, json={"attributes": {"brand": "b"}, "price": 2.5})
    seq = done(created)["seq"]
    read = admin.get(path)
    assert done(read) == {"id": one, **STATE}
    assert read.headers["ETag"] == created.headers["ETag"] == f'"{seq}"'
    replaced = admin.put(path, json={"id": one, "in_stock": False})
    assert done(replaced)["seq"] == seq + 1
    assert done(admin.get(path)) == {"id": one, **STATE, "attributes": {}, "price": None, "in_stock": False}
    assert done(admin.delete(path))["seq"] == seq + 2
    problem(admin.get(path), 404)
    problem(admin.delete(path), 404)
    problem(admin.patch(path, json={"price": 1}), 404)
    assert done(admin.put(path, json={}))["seq"] == seq + 3


KINDS = {
    "products": {"price": 1},
    "locations": {"latitude": 50, "longitude": 8.5, "region": "south"},
    "customers": {"attributes": {"age": "65+"}},
    "offers": None,
    "campaigns": {"name": "Spring", "starts": "2026-01-01T00:00:00+01:00"},
    "segments": {"name": "Ältere"},
    "promotions": None,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_read_changes_nothing_when_it_is_written_back(admin: httpx.Client, kind: str):
    fields = KINDS[kind]
    if fields is None:
        fields = offer_fields(admin)
    if kind == "promotions":
        done(admin.put("/v1/locations/here", json={}))
        fields |= {"channel": "mailer", "location": "here"}
    path = at(kind, fresh())
    done(admin.put(path, json=fields))
    read, before = admin.get(path), newest(admin)
    written = admin.put(path, content=read.content, headers=JSON)
    assert (done(written)["seq"], written.headers["ETag"]) == (before, read.headers["ETag"])
    batched = admin.post(f"/v1/{kind}:batch", json=[read.json()])
    assert done(batched)["seq"] == before
    assert done(admin.get(f"/v1/{kind}?limit=1"))["items"][0]["body"] == read.json()


@pytest.mark.parametrize(
    "one",
    ["a/b", "/", "//", "a/", "..", ".", "%2F", "a:restore", "a/history", "?", "#", "é", "日本", " ", "{id}", "x" * 256],
)
def test_any_id_is_found_by_every_call(admin: httpx.Client, one: str):
    path = at("products", one)
    seq = done(admin.put(path, json={"price": 1}))["seq"]
    assert done(admin.get(path))["id"] == one
    done(admin.patch(path, json={"price": 2}))
    done(admin.post(f"{path}:restore", json={"seq": seq}))
    assert done(admin.get(path))["price"] == 1
    assert [item["id"] for item in done(admin.get(f"{path}/history"))["items"]] == [one] * 3
    done(admin.delete(path))


def test_an_id_that_is_an_integer_is_its_text_and_another_than_the_paths_is_refused(admin: httpx.Client):
    done(admin.put("/v1/products/7", json={"id": 7}))
    assert done(admin.get("/v1/products/7"))["id"] == "7"
    for other in (8, "8", None, True, 7.0):
        assert problem(admin.put("/v1/products/7", json={"id": other}), 422)["field"] == "id"
    problem(admin.put(at("products", "x" * 257), json={}), 422)
    problem(admin.put(at("products", "a\nb"), json={}), 422)
    problem(admin.get("/v1/products/%ff"), 404)


def test_a_write_that_expects_another_state_is_refused(admin: httpx.Client):
    path = at("products", fresh())
    problem(admin.put(path, json={}, headers={"If-Match": "*"}), 412)
    problem(admin.put(path, json={}, headers={"If-Match": '"1"'}), 412)
    first = admin.put(path, json={"price": 1}, headers={"If-None-Match": "*"})
    done(first)
    assert "has changed since" in problem(admin.put(path, json={}, headers={"If-None-Match": "*"}), 412)["detail"]
    second = admin.patch(path, json={"price": 2}, headers={"If-Match": first.headers["ETag"]})
    done(second)
    stale = {"If-Match": first.headers["ETag"]}
    for answer in (
        admin.put(path, json={"price": 3}, headers=stale),
        admin.patch(path, json={"no such": "field"}, headers=stale),
        admin.delete(path, headers=stale),
        admin.post(f"{path}:restore", json={"seq": done(first)["seq"]}, headers=stale),
    ):
        assert second.headers["ETag"] in problem(answer, 412)["detail"]
    assert done(admin.get(path))["price"] == 2
    for header, value in (("If-Match", "2"), ("If-Match", 'W/"2"'), ("If-None-Match", '"2"')):
        assert problem(admin.put(path, json={}, headers={header: value}), 422)["field"] == header
    done(admin.put(path, json={}, headers={"If-Match": "*"}))


def test_a_reader_that_has_the_present_state_is_told_so(admin: httpx.Client):
    path = at("products", product(admin))
    etag = admin.get(path).headers["ETag"]
    answer = admin.get(path, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    done(admin.patch(path, json={"price": 9}))
    done(admin.get(path, headers={"If-None-Match": etag}))
    head = admin.head(path)
    assert (head.status_code, head.content) == (200, b"")


def test_a_patch_changes_what_it_names_and_is_checked_as_a_whole(admin: httpx.Client):
    path = at("offers", offer(admin, content={"title": "A", "image": {"url": "u", "alt": "x"}}, name="Milk"))
    patch = {"name": None, "content": {"image": {"alt": None}, "text": "t"}, "channels": ["web"]}
    done(admin.patch(path, content=json.dumps(patch), headers={"Content-Type": "application/merge-patch+json"}))
    read = done(admin.get(path))
    assert read["content"] == {"title": "A", "image": {"url": "u"}, "text": "t"}
    assert (read["name"], read["channels"]) == ("", ["web"])
    for wrong, field in (
        ({"starts": None}, "starts"),
        ({"ends": "2020-01-01T00:00:00Z"}, "ends"),
        ({"uses": "2"}, "uses"),
        ({"channels": ["tv"]}, "channels[0]"),
    ):
        assert faults(admin.patch(path, json=wrong)) == [(0, field)]
    assert problem(admin.patch(path, json=[1]), 422)["field"] == "body"
    assert done(admin.get(path)) == read


def test_patches_at_once_lose_nothing(managed: Server, admin: httpx.Client):
    from concurrent.futures import ThreadPoolExecutor

    path = at("products", product(admin))

    def patch(number: int) -> None:
        with client_of(managed) as client:
            for turn in range(5):
                done(client.patch(path, json={"attributes": {f"a{number}-{turn}": "x"}}))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(patch, range(4)))
    assert len(done(admin.get(path))["attributes"]) == 20


def test_pages_show_what_changed_last_first_and_each_thing_once(admin: httpx.Client):
    mark = uuid4().hex
    ids = [f"{mark}-{number}" for number in range(7)]
    done(admin.post("/v1/segments:batch", json=[{"id": one} for one in ids]))
    done(admin.put(at("segments", ids[2]), json={"name": "changed"}))
    seen: list[str] = []
    cursor = ""
    while True:
        page = done(admin.get("/v1/segments", params={"limit": 3, "q": mark} | ({"cursor": cursor} if cursor else {})))
        seen += [item["body"]["id"] for item in page["items"]]
        if len(seen) == 3:  # what changes meanwhile moves to the front, and disturbs nothing else
            done(admin.put(at("segments", ids[6]), json={"name": "again"}))
            done(admin.delete(at("segments", ids[0])))
        if page["cursor"] is None:
            break
        cursor = page["cursor"]
    assert seen == [ids[2], ids[6], ids[5], ids[4], ids[3], ids[1]]
    for item in page["items"]:
        assert admin.get(at("segments", item["body"]["id"])).headers["ETag"] == f'"{item["seq"]}"'


def test_pages_of_large_states_end_early_and_lead_on(admin: httpx.Client):
    mark, before = uuid4().hex, newest(admin)
    names = {f"{mark}-{number}": f"{number}" + 3_000_000 * "n" for number in range(5)}
    for one, name in names.items():
        done(admin.put(at("segments", one), json={"name": name}))
    seen, cursor, pages = dict[str, str](), None, 0
    while pages == 0 or cursor is not None:
        page = done(admin.get("/v1/segments", params={"q": mark} | ({"cursor": cursor} if cursor else {})))
        seen |= {item["body"]["id"]: item["body"]["name"] for item in page["items"]}
        assert sum(len(item["body"]["name"]) for item in page["items"]) < 2**23
        pages, cursor = pages + 1, page["cursor"]
    assert list(seen.items()) == list(names.items())[::-1]
    logged, after = list[str](), before
    while items := done(admin.get("/v1/changes", params={"after": after, "limit": 1_000}))["items"]:
        logged += [item["id"] for item in items]
        after = items[-1]["seq"]
        assert len(items) < 5
    assert logged == [*names]
    one = f"{mark}-0"
    for number in range(3):
        done(admin.put(at("segments", one), json={"name": f"a{number}" + 3_000_000 * "n"}))
    first = done(admin.get(f"{at('segments', one)}/history"))
    then = done(admin.get(f"{at('segments', one)}/history", params={"cursor": first["cursor"]}))
    assert then["cursor"] is None
    assert [item["body"]["name"][:2] for item in first["items"] + then["items"]] == ["a2", "a1", "a0", "0n"]


def test_a_search_finds_parts_of_ids_and_names_in_any_case(admin: httpx.Client):
    mark = uuid4().hex
    one, other = fresh(f"{mark}-ÄB"), fresh(mark)
    done(admin.put(at("segments", one), json={}))
    done(admin.put(at("segments", other), json={"name": "100%_Straße \\ ÉTÉ"}))

    def found(text: str) -> set[str]:
        return {item["body"]["id"] for item in done(admin.get("/v1/segments", params={"q": text}))["items"]}

    assert found(mark.upper()) == {one, other}
    assert found(f"{mark}-äb") == {one}
    assert other in found("straße \\ été")
    assert other in found("100%_s")
    assert found("100__S") == set()


@pytest.mark.parametrize("text", ["\0", "a\0", "a\nb", "a\n", "\x7f"])
def test_a_search_for_a_control_character_is_refused(admin: httpx.Client, text: str):
    for kind in ("offers", "segments"):
        assert problem(admin.get(f"/v1/{kind}", params={"q": text}), 422)["field"] == "q"


def test_an_offer_shows_its_state_in_time_and_is_found_by_it(admin: httpx.Client):
    mark = uuid4().hex
    expected = {
        "draft": offer(admin, status="draft", name=mark),
        "pending": offer(admin, status="pending", name=mark),
        "scheduled": offer(admin, (1, 2), name=mark),
        "live": offer(admin, name=mark),
        "paused": offer(admin, (-2, -1), status="paused", name=mark),
        "ended": offer(admin, (-2, -1), name=mark),
    }
    for status, one in expected.items():
        read = done(admin.get(at("offers", one)))
        assert read["status"] == status
        before = newest(admin)
        assert done(admin.put(at("offers", one), json=read))["seq"] == before
        assert done(admin.patch(at("offers", one), json={"status": status}))["seq"] == before
        assert done(admin.post("/v1/offers:batch", json=[read]))["seq"] == before
        listed = done(admin.get("/v1/offers", params={"q": mark, "status": status}))["items"]
        assert [item["body"] for item in listed] == [read]
    several = done(admin.get("/v1/offers", params={"q": mark, "status": "live,ended"}))["items"]
    assert {item["body"]["id"] for item in several} == {expected["live"], expected["ended"]}
    assert problem(admin.get("/v1/offers?status=gone"), 422)["field"].startswith("status")
    assert problem(admin.get("/v1/products?status=live"), 422)["field"] == "status"


@pytest.mark.parametrize(
    ("action", "leads"),
    [
        ("approve", {"draft": "live", "pending": "live"}),
        ("pause", {"scheduled": "paused", "live": "paused"}),
        ("resume", {"paused": "live"}),
    ],
)
def test_actions_lead_from_one_state_to_the_next(admin: httpx.Client, action: str, leads: dict[str, str]):
    for status in ("draft", "pending", "scheduled", "live", "paused", "ended"):
        days = {"scheduled": (1, 2), "ended": (-2, -1)}.get(status, (-1, 1))
        path = at("offers", offer(admin, days, status=status, name="kept"))
        read = done(admin.get(path))
        answer = admin.post(f"{path}:{action}", headers=JSON)
        if status in leads:
            assert answer.headers["ETag"] == f'"{done(answer)["seq"]}"'
            assert done(admin.get(path)) == {**read, "status": leads[status]}
        else:
            assert f"is {status}" in problem(answer, 409)["detail"]
            assert done(admin.get(path)) == read
    problem(admin.post(f"/v1/offers/nobody:{action}", headers=JSON), 404)
    problem(admin.post(f"/v1/products/nobody:{action}", headers=JSON), 405)
    stale = admin.post(f"{path}:{action}", headers={**JSON, "If-Match": '"1"'})
    problem(stale, 412)


def test_a_history_says_who_made_what_of_a_thing_and_brings_it_back(admin: httpx.Client):
    place = fresh("l")
    done(admin.put(at("locations", place), json={}))
    path = at("products", fresh())
    first = done(admin.put(path, json={"price": 1, "locations": [place]}, headers={b"X-Actor": "Zoë".encode()}))["seq"]
    done(admin.delete(path, headers={"X-Actor": "bob"}))
    done(admin.put(path, json={"price": 3}))
    history = done(admin.get(f"{path}/history"))
    assert [(one["actor"], one["withdrawn"], (one["body"] or {}).get("price")) for one in history["items"]] == [
        ("admin", False, 3),
        ("bob", True, None),
        ("Zoë", False, 1),
    ]
    pages = done(admin.get(f"{path}/history?limit=2"))
    rest = done(admin.get(f"{path}/history", params={"limit": 2, "cursor": pages["cursor"]}))
    assert (pages["items"] + rest["items"], rest["cursor"]) == (history["items"], None)
    restored = admin.post(f"{path}:restore", json={"seq": first})
    assert restored.headers["ETag"] == f'"{done(restored)["seq"]}"'
    assert done(admin.get(path))["locations"] == [place]
    done(admin.put(path, json={"price": 3}))
    done(admin.delete(at("locations", place)))
    assert faults(admin.post(f"{path}:restore", json={"seq": first})) == [(0, "locations[0]")]
    for wrong in (first + 1, first - 1, 2**62):
        assert problem(admin.post(f"{path}:restore", json={"seq": wrong}), 422)["field"] == "seq"
    problem(admin.get(at("products", fresh()) + "/history"), 404)
    for actor in (b"", b"x" * 257, b"\xff"):
        assert problem(admin.put(path, json={}, headers={b"X-Actor": actor}), 422)["field"] == "X-Actor"


def test_the_change_log_is_read_in_order(admin: httpx.Client):
    before = newest(admin)
    one, other = product(admin, price=1), product(admin)
    done(admin.delete(at("products", one)))
    log = done(admin.get("/v1/changes", params={"after": before}))["items"]
    assert [(item["seq"], item["kind"], item["id"], item["withdrawn"]) for item in log] == [
        (before + 1, "product", one, False),
        (before + 2, "product", other, False),
        (before + 3, "product", one, True),
    ]
    assert [item["body"] for item in log] == [{"id": one, "price": 1}, {"id": other}, None]
    assert done(admin.get("/v1/changes", params={"after": before + 1, "limit": 1}))["items"] == log[1:2]


def test_a_batch_is_written_as_a_whole_or_not_at_all_and_names_every_fault(admin: httpx.Client):
    mark = uuid4().hex
    things: list[Any] = [{"id": f"{mark}-{number}", "price": number} for number in range(10_000)]
    before = newest(admin)
    wrong: list[Any] = [{**one} for one in things]
    wrong[7_777] |= {"price": -1}
    assert faults(admin.post("/v1/products:batch", json=wrong)) == [(7_777, "price")]
    wrong[3] = {"id": "", "prize": 2, "price": "1"}
    wrong[5] = 5
    wrong[8] |= {"locations": ["nowhere"]}
    wrong[9] = {"id": f"{mark}-0"}
    wrong[10] |= {"attributes": {"a": "\0"}}
    wrong[11] |= {"attributes": {"price": "high", "brand": "b", "*": "b"}}
    answer = admin.post("/v1/products:batch", json=wrong)
    assert faults(answer) == [
        (3, "prize"),
        (3, "id"),
        (3, "price"),
        (5, "body"),
        (8, "locations[0]"),
        (9, "id"),
        (10, "attributes"),
        (11, "attributes.price"),
        (11, "attributes.*"),
        (7_777, "price"),
    ]
    assert "did you mean price?" in answer.text
    assert newest(admin) == before
    assert done(admin.post("/v1/products:batch", json=things))["seq"] == before + 10_000
    lines = "\n".join(json.dumps({**one, "in_stock": False}) for one in things[:3])
    assert done(admin.post("/v1/products:batch", content=lines + "\n", headers=NDJSON))["seq"] == before + 10_003
    broken = admin.post("/v1/products:batch", content='{"id": "a"}\n{"id": "b"', headers=NDJSON)
    problem(broken, 400)
    answer = admin.post("/v1/products:batch", json=[*things, {"id": "one too many"}])
    assert "10,001" in problem(answer, 422)["detail"]
    problem(admin.post("/v1/products:batch", json={}), 422)


def test_of_many_faults_the_first_are_named_and_the_others_counted(admin: httpx.Client):
    answer = admin.post("/v1/products:batch", json=[{"id": fresh(), "price": -1} for _ in range(1_005)])
    assert faults(answer) == [(place, "price") for place in range(1_000)]
    assert answer.json()["errors_left_out"] == 5
    one = offer_fields(admin) | {"products": [fresh() for _ in range(100)]}
    assert faults(admin.put(at("offers", fresh()), json=one)) == [
        *((0, f"products[{place}]") for place in range(20)),
        (0, "products"),
    ]
    named = {f"^{number}$": "b" for number in range(100)}
    found = faults(admin.put(at("products", fresh()), json={"attributes": named}))
    assert (len(found), found[-1]) == (21, (0, "attributes"))


def test_a_batch_that_names_a_thing_twice_is_refused(admin: httpx.Client):
    one = fresh()
    answer = admin.post("/v1/products:batch", json=[{"id": one}, {"id": fresh()}, {"id": one, "price": 1}])
    assert faults(answer, 409) == [(2, "id")]
    problem(admin.get(at("products", one)), 404)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"ends": "2020-01-01T00:00:00Z"}, "ends"),
        ({"products": ["no such product"]}, "products[0]"),
        ({"locations": ["nowhere"]}, "locations[0]"),
        ({"channels": ["web", "tv"]}, "channels[1]"),
        ({"audience": "nobody"}, "audience"),
        ({"campaign": "none"}, "campaign"),
        ({"starts": "2026-01-01T00:00:00"}, "starts"),
        ({"starts": "2026-01-01T00:00:00+16:00"}, "starts"),
        ({"starts": "0001-01-01T00:00:00+10:00"}, "starts"),
        ({"starts": "yesterday"}, "starts"),
        ({"uses": 0}, "uses"),
        ({"uses": 1.5}, "uses"),
        ({"priority": 0}, "priority"),
        ({"value": -1}, "value"),
        ({"status": "gone"}, "status"),
        ({"status": ["live"]}, "status"),
        ({"kind": "voucher"}, "kind"),
        ({"name": "a\0b"}, "name"),
        ({"content": {"a\0": 1}}, "content"),
        ({"products": ["a\0"]}, "products[0]"),
        ({"products": "milk"}, "products"),
        ({"chanels": ["web"]}, "chanels"),
        ({"content": {"a": "é" * 2**15}}, "content"),
        ({"content": {"a": [{"b": 2**16 * "x"}]}}, "content"),
        ({"name": 2**22 * "n"}, "name"),
    ],
)
def test_a_faulty_offer_is_refused_by_its_field(admin: httpx.Client, fields: dict[str, Any], field: str):
    one = fresh()
    wrong = offer_fields(admin) | fields
    assert faults(admin.put(at("offers", one), json=wrong)) == [(0, field)]
    right = {"id": fresh(), **offer_fields(admin)}
    assert faults(admin.post("/v1/offers:batch", json=[right, {"id": one, **wrong}])) == [(1, field)]
    problem(admin.get(at("offers", one)), 404)
    problem(admin.get(at("offers", right["id"])), 404)


def test_the_largest_states_are_kept_and_larger_ones_are_not_made_by_patches(admin: httpx.Client):
    content = {"a": (2**16 - len('{"a":""}')) * "x"}
    one = offer(admin, content=content)
    assert done(admin.get(at("offers", one)))["content"] == content
    answer = admin.patch(at("offers", one), json={"content": {"b": 1}}, headers=JSON)
    assert faults(answer) == [(0, "content")]
    mark = uuid4()
    names = [f"{mark}-{number:06}" for number in range(10_000)]
    done(admin.post("/v1/products:batch", json=[{"id": name} for name in names]))
    many = offer(admin, products=names, name=3_500_000 * "n")
    assert done(admin.get(at("offers", many)))["products"] == names
    assert faults(admin.patch(at("offers", many), json={"name": 4_000_000 * "n"}, headers=JSON)) == [(0, "name")]


def test_what_is_odd_and_right_is_kept_as_it_is(admin: httpx.Client):
    content = {"a": 1e15, "b": 10**25, "c": [None, {"d": "\\u0000 \u2028 \U0001f4a9"}], "": -0.5, "e": 1.0}
    path = at("offers", offer(admin, content=content))
    read = done(admin.get(path))
    assert read["content"] == content
    assert done(admin.put(path, json=read))["seq"] == newest(admin)


def test_what_offers_refer_to_is_not_withdrawn(admin: httpx.Client):
    one = offer(admin)
    named = done(admin.get(at("offers", one)))["products"][0]
    assert f"offer {one!r} refers to {named!r}" in problem(admin.delete(at("products", named)), 409)["detail"]
    done(admin.get(at("products", named)))
    done(admin.delete(at("offers", one)))
    done(admin.delete(at("products", named)))


@pytest.mark.parametrize("body", ["", "{", "\ufeff{}", '{"price": NaN}', b"\xff", "[" * 100_000])
def test_a_body_that_is_no_json_is_refused(admin: httpx.Client, body: str | bytes):
    for method, path in (("PUT", "/v1/products/x"), ("PATCH", "/v1/products/x"), ("POST", "/v1/products:batch")):
        problem(admin.request(method, path, content=body, headers=JSON), 400)


@pytest.mark.parametrize("declared", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_write_that_a_page_of_another_site_could_send_is_refused(admin: httpx.Client, declared: str | None):
    headers = {"Content-Type": declared} if declared else {}
    one = offer(admin, status="draft")
    for method, path in (
        ("POST", "/v1/products:batch"),
        ("POST", at("offers", one) + ":approve"),
        ("POST", at("offers", one) + ":restore"),
        ("POST", "/v1/releases/x:serve"),
        ("PUT", at("offers", one)),
        ("PATCH", at("offers", one)),
    ):
        problem(admin.request(method, path, content=b"{}" if declared else b"", headers=headers), 415)
    assert done(admin.get(at("offers", one)))["status"] == "draft"
    asked = admin.options(at("offers", one), headers={"Origin": "http://evil.example"})
    assert not [name for name in asked.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8001", "localhost.evil.example", "127.0.0.1.evil.example", ""]
)
def test_a_page_that_took_this_machine_for_its_own_site_is_refused(admin: httpx.Client, host: str):
    for path in ("/v1/products", "/v1/changes", "/openapi.json"):
        problem(admin.get(path, headers={"Host": host}), 403)
    problem(admin.delete("/v1/products/x", headers={"Host": host}), 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "admin.localhost", "[::1]:8001", "10.0.0.1"])
def test_local_names_and_addresses_are_served(admin: httpx.Client, host: str):
    done(admin.get("/v1/products?limit=1", headers={"Host": host}))


def test_a_body_that_is_too_large_is_refused(admin: httpx.Client):
    problem(admin.post("/v1/products:batch", content=b" " * (2**26 + 1), headers=JSON), 413)


def test_unknown_paths_methods_and_parameters_are_refused(admin: httpx.Client):
    for path in ("/v1/nothing", "/v1/products/", "/v1/", "/v1", "/nothing"):
        problem(admin.get(path), 404)
    wrong = admin.post("/v1/products", json={})
    assert problem(wrong, 405)
    assert wrong.headers["Allow"] == "GET"
    assert set(admin.post("/v1/products/x", json={}).headers["Allow"].split(", ")) == {"GET", "PUT", "PATCH", "DELETE"}
    for query in ("limit=0", "limit=1001", "limit=x", "cursor=x", "cursor=", "sort=id", "q=a&q=b"):
        problem(admin.get(f"/v1/products?{query}"), 422)
    problem(admin.get("/v1/products/x?limit=1"), 422)
    problem(admin.post("/v1/offers/x:pause", json={"why": "?"}), 422)


def test_releases_are_listed_and_served_again(managed: Server, admin: httpx.Client):
    first = managed.client.get("/v1/model").json()["version"]
    lay_beside(managed.store, "another")
    damaged = lay_beside(managed.store, "damaged")
    (damaged / "vectors" / "products.npy").write_bytes(b"")
    listed = done(admin.get("/v1/releases"))["releases"]
    assert {one["version"]: (one["current"], one["servable"]) for one in listed} == {
        first: (True, True),
        "another": (False, True),
        "damaged": (False, True),
    }
    assert "products.npy" in problem(admin.post("/v1/releases/damaged:serve", headers=JSON), 409)["detail"]
    problem(admin.post("/v1/releases/..%2Fx:serve", headers=JSON), 404)
    for version in ("another", first):
        assert done(admin.post(f"/v1/releases/{version}:serve", headers=JSON)) == {"version": version}
        eventually(lambda: managed.client.get("/v1/model").json()["version"] == version, version)  # noqa: B023
        assert [one["version"] for one in done(admin.get("/v1/releases"))["releases"] if one["current"]] == [version]


def test_the_description_names_every_call_and_resolves(admin: httpx.Client):
    described = done(admin.get("/openapi.json"))
    calls = {(method, path) for path, item in described["paths"].items() for method in item}
    assert ("put", "/v1/offers/{id}") in calls
    assert ("post", "/v1/offers/{id}:pause") in calls
    assert ("get", "/v1/changes") in calls
    assert not [path for _, path in calls if "{rest" in path]
    operations = [one["operationId"] for item in described["paths"].values() for one in item.values()]
    assert len(set(operations)) == len(operations)
    text = json.dumps(described)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= described["components"]["schemas"].keys()


def test_an_offer_whose_end_lies_ahead_cannot_be_said_to_have_ended(admin: httpx.Client):
    one = offer(admin, (-1, 1))
    done(admin.post(f"{at('offers', one)}:pause", headers=JSON))
    refused = admin.patch(at("offers", one), json={"status": "ended"})
    assert problem(refused, 422)["errors"][0]["field"] == "status"
    assert done(admin.get(at("offers", one)))["status"] == "paused"
    over = {"status": "ended", "ends": (NOW - timedelta(hours=1)).isoformat()}
    done(admin.patch(at("offers", one), json=over))
    assert done(admin.get(at("offers", one)))["status"] == "ended"
