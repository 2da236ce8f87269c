"""Events over HTTP: durable, seen in the very next answer, counted once."""

import asyncio
import random
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from embeddings.catalogue.tables import EVENT_TYPES
from embeddings.database.migrate import prepare
from serving.clock import AHEAD_SECONDS
from serving.state.event import Event
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations
from tests.integration.server import Postgres, Server, assortment, event, eventually, ids, world
from tests.world import UNTIL, department, favourite, store

SOON = UNTIL + timedelta(hours=1)
LATER = UNTIL + timedelta(hours=2)


def times_bought(server: Server, customer: str, product: str) -> str:
    """What the next answer says of how often a product was bought; nothing if it does not know."""
    for item in server.recommend(customer, at=LATER, limit=100)["items"]:
        for reason in item["reasons"]:
            if item["id"] == product and reason["code"] == "bought_before":
                return reason["text"]
    return ""


def test_purchases_of_a_new_product_raise_it(recorder: Server):
    """A product of another department, bought every week like a favourite, passes all others but that."""
    customer, new = "c000", "p034"
    own = {one for one in assortment("north") - {"late", "unsold"} if department(one) == department(favourite(0))}
    assert store(0) == "north"
    assert new in assortment("north") - own
    ranks: list[int] = []
    known: list[float] = []
    for week in range(9):
        at = UNTIL + timedelta(weeks=week, hours=10)
        shown = recorder.recommend(customer, "store", "north", at=at, limit=100, explain=True)["items"]
        place = [one["id"] for one in shown].index(new)
        ranks.append(place + 1)
        known.append(shown[place]["explanation"]["features"]["own_times"])
        answer = recorder.report(event(customer, new, at, location="north"))
        assert answer == {"accepted": 1, "duplicates": 0, "unknown": 0, "rejected": []}
    assert known == list(range(9)), "each purchase shows in the very next answer"
    assert ranks[0] > len(own) == 15
    assert ranks[-1] <= 2, "only the favourite of many more weeks may still be before it"


def test_a_new_customer_is_known_after_the_first_event(recorder: Server):
    before = recorder.recommend("newcomer", at=LATER)
    assert not before["personalised"]
    recorder.report(event("newcomer", "p050", SOON))
    after = recorder.recommend("newcomer", at=LATER, limit=100)
    assert after["personalised"]
    (bought,) = [item for item in after["items"] if item["source"] == "buy_again"]
    assert bought["id"] == "p050"
    assert bought["reasons"] == [{"code": "bought_before", "text": "Bought once before."}]


@pytest.mark.parametrize("kind", ["click", "view", "add_to_cart"])
def test_an_event_that_is_no_purchase_personalises_without_pretending_one(recorder: Server, kind: str):
    recorder.report(event(f"looker-{kind}", "p050", SOON, kind))
    answer = recorder.recommend(f"looker-{kind}", at=LATER, limit=100)
    assert answer["personalised"]
    found = {item["source"] for item in answer["items"]}
    assert {"bought_together", "towers"} <= found
    assert not {"buy_again", "due_now", "also_bought"} & found
    assert times_bought(recorder, f"looker-{kind}", "p050") == ""


@pytest.mark.parametrize("kind", ["impression", "dismissal", "check_in", "play", "rating"])
def test_what_was_only_shown_or_refused_or_is_not_what_the_release_predicts_is_no_taste(recorder: Server, kind: str):
    before = recorder.recommend(f"shown-{kind}", at=LATER)["items"]
    recorder.report(event(f"shown-{kind}", "p050", SOON, kind))
    answer = recorder.recommend(f"shown-{kind}", at=LATER)
    assert not answer["personalised"]
    assert answer["items"] == before


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_whoever_did_anything_that_is_accepted_is_answered(recorder: Server, kind: str):
    named = {"offer_id": "everyone"} if kind == "redemption" else {}
    recorder.report(event("c018", None if named else "p050", SOON, kind, **named))
    assert recorder.recommend("c018", at=LATER)["items"]


def test_somebody_elses_events_change_nothing(recorder: Server):
    before = recorder.recommend("c008", at=LATER)["items"]
    recorder.report(*(event("c012", "p050", SOON) for _ in range(20)))
    assert recorder.recommend("c008", at=LATER)["items"] == before


def test_a_duplicate_is_harmless_within_a_request_and_across(recorder: Server):
    customer = "repeater"
    one, other = event(customer, "p000", SOON), event(customer, "p004", SOON)
    assert recorder.report(one, one, other) == {"accepted": 2, "duplicates": 1, "unknown": 0, "rejected": []}
    assert recorder.report(one, other) == {"accepted": 0, "duplicates": 2, "unknown": 0, "rejected": []}
    changed = {**one, "product_id": "p008"}
    assert recorder.report(changed) == {"accepted": 0, "duplicates": 1, "unknown": 0, "rejected": []}
    assert times_bought(recorder, customer, "p000") == "Bought once before."
    assert times_bought(recorder, customer, "p004") == "Bought once before."
    assert times_bought(recorder, customer, "p008") == ""


def test_of_two_events_with_one_id_in_a_request_the_first_counts(recorder: Server):
    first = event("two-faced", "p000", SOON)
    recorder.report(first, {**first, "product_id": "p004"})
    assert times_bought(recorder, "two-faced", "p000") == "Bought once before."
    assert times_bought(recorder, "two-faced", "p004") == ""


def test_an_event_of_the_past_that_comes_late_counts_too(recorder: Server):
    recorder.recommend("c016", at=LATER)
    for customer in ("c016", "c020"):  # one in memory, one not
        recorder.report(event(customer, "p111", UNTIL - timedelta(days=30)))
        assert times_bought(recorder, customer, "p111") == "Bought once before."


def test_an_event_whose_first_answer_was_lost_shows_after_its_repetition(own: Server):
    first, lost = event("c000", "p111", SOON), event("c001", "p111", SOON)
    own.report(first)
    assert times_bought(own, "c001", "p111") == ""  # and from now on in memory

    async def store_unnoticed() -> None:
        connection = await asyncpg.connect(own.options[1])
        await connection.execute(
            "WITH key AS (INSERT INTO event_keys VALUES ('http', $1, current_date))"
            " INSERT INTO events (source, event_id, customer_id, type, at, product_id, quantity, server)"
            " SELECT 'http', $1, $2, $3, $4, $5, 1, server FROM events WHERE event_id = $6",
            *(lost[name] for name in ("event_id", "customer_id", "type")),
            SOON,
            lost["product_id"],
            first["event_id"],
        )
        await connection.close()

    asyncio.run(store_unnoticed())
    assert own.report(lost) == {"accepted": 0, "duplicates": 1, "unknown": 0, "rejected": []}
    assert times_bought(own, "c001", "p111") == "Bought once before."


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"product_id": None}, "product_id"),
        ({"product_id": None, "type": "remove_from_cart"}, "product_id"),
        ({"product_id": None, "type": "return"}, "product_id"),
        ({"type": "stare"}, "type"),
        ({"quantity": -1}, "quantity"),
        ({"quantity": 1e308}, "quantity"),
        ({"value": 1e308}, "value"),
        ({"customer_id": 1.5}, "customer_id"),
        ({"colour": "red"}, "colour"),
        ({"offer_id": "free-lunch"}, "offer_id"),
        ({"location": "atlantis"}, "location"),
        ({"channel": "smoke-signal"}, "channel"),
        ({"type": "redemption"}, "offer_id"),
        ({"type": "impression", "product_id": None}, "product_id"),
        ({"at": "9999-12-31T23:59:59-14:00"}, "at"),
        ({"at": "0001-01-01T00:00:00Z"}, "at"),
    ],
)
def test_a_faulty_event_is_rejected_alone_by_place(recorder: Server, change: dict[str, Any], field: str):
    customer = f"mixed-{field}-{change}"[:100]
    good = [event(customer, "p000", SOON), event(customer, "p004", SOON)]
    bad = {**event(customer, "p008", SOON), **change}
    answer = recorder.report(good[0], bad, good[1])
    assert (answer["accepted"], answer["duplicates"]) == (2, 0)
    (rejected,) = answer["rejected"]
    assert rejected["index"] == 1
    assert rejected["error"]["field"] == f"events[1].{field}"
    assert rejected["error"]["status"] == 422
    assert rejected["error"]["detail"]
    assert rejected["errors"] == [rejected["error"]]
    assert times_bought(recorder, customer, "p000") == "Bought once before."


def test_all_that_is_wrong_with_each_of_many_events_is_said_and_the_others_are_stored(recorder: Server):
    events = [event("bulk", f"p{number % 120:03d}", SOON) for number in range(1_000)]
    events[500]["quantity"] = -1
    events[700] |= {"at": "2025-06-01 10:00", "location": "atlantis", "type": "refund", "colour": "red"}
    events[900] |= {"type": "redemption", "channel": "smoke-signal"}
    events[999] = {}
    answer = recorder.report(*events)
    assert (answer["accepted"], answer["duplicates"], answer["unknown"]) == (996, 0, 0)
    wrong = {
        one["index"]: {error["field"].removeprefix(f"events[{one['index']}].") for error in one["errors"]}
        for one in answer["rejected"]
    }
    assert wrong == {
        500: {"quantity"},
        700: {"at", "location", "type", "colour"},
        900: {"offer_id", "channel"},
        999: {"event_id", "type", "customer_id", "at"},
    }
    assert all(one["error"] == one["errors"][0] for one in answer["rejected"])


@pytest.mark.parametrize("body", [{}, [], {"events": {}}, {"events": []}, {"events": [], "source": "till"}])
def test_what_is_no_list_of_events_is_refused_as_a_whole(recorder: Server, body: object):
    assert recorder.client.post("/v1/events", json=body).status_code == 422


def test_a_rejected_event_may_be_sent_again_corrected(recorder: Server):
    wrong = event("corrector", "p000", SOON, location="atlantis")
    assert recorder.report(wrong)["accepted"] == 0
    assert recorder.report({**wrong, "location": "north"})["accepted"] == 1


def test_an_event_of_an_unknown_product_is_accepted_and_counted(recorder: Server):
    unknown, known = event("early-adopter", "p999", SOON), event("early-adopter", "p000", SOON)
    expected = {"accepted": 2, "duplicates": 0, "unknown": 1, "rejected": []}
    assert recorder.report(unknown, known) == expected
    assert recorder.report(unknown) == {**expected, "accepted": 0, "duplicates": 1, "unknown": 0}
    assert times_bought(recorder, "early-adopter", "p000") == "Bought once before."


def test_ids_may_be_integers(recorder: Server):
    number = random.getrandbits(60)
    sent = {**event("", "p000", SOON), "event_id": number, "customer_id": number}
    assert recorder.report(sent)["accepted"] == 1
    assert recorder.report({**sent, "event_id": str(number)})["duplicates"] == 1
    assert times_bought(recorder, str(number), "p000") == "Bought once before."
    answer = recorder.client.post(
        "/v1/recommend", json={"customer_id": number, "context": {"channel": "web", "at": LATER.isoformat()}}
    )
    assert answer.json()["personalised"]


# What is taken out of the basket, and back


def test_what_was_taken_out_of_the_basket_may_be_recommended_again(recorder: Server):
    customer = "undecided"
    recorder.report(event(customer, "p004", SOON, "view"))
    best = ids(recorder.recommend(customer, at=LATER))[0]
    recorder.report(event(customer, best, SOON, "add_to_cart"))
    assert best not in ids(recorder.recommend(customer, at=LATER))
    recorder.report(event(customer, best, SOON, "remove_from_cart"))
    assert best in ids(recorder.recommend(customer, at=LATER))


def test_what_was_taken_back_was_not_bought(recorder: Server):
    customer = "returner"

    def times() -> str:
        return times_bought(recorder, customer, "p000")

    recorder.report(event(customer, "p000", SOON - timedelta(days=1)), event(customer, "p000", SOON, quantity=3))
    assert times() == "Bought 2 times before."
    recorder.report(event(customer, "p000", LATER, "return", quantity=2))
    assert times() == "Bought 2 times before.", "of the second purchase one is left"
    recorder.report(event(customer, "p000", LATER, "return", quantity=1))
    assert times() == "Bought once before."
    recorder.report(event(customer, "p000", LATER, "return", quantity=10))
    assert times() == ""
    recorder.report(event(customer, "p000", LATER + timedelta(minutes=1)))
    assert times() == "Bought once before.", "a return takes nothing of what is bought later"


def test_a_purchase_of_before_the_cut_off_can_be_taken_back(recorder: Server):
    customer = "c024"
    bought = [one["product_id"] for one in world()["events"] if one["customer_id"] == customer and one["at"] < UNTIL]
    again = favourite(24)
    assert times_bought(recorder, customer, again) == f"Bought {bought.count(again)} times before."
    recorder.report(event(customer, again, SOON, "return", quantity=bought.count(again) - 1))
    assert times_bought(recorder, customer, again) == "Bought once before."
    recorder.report(event(customer, again, SOON, "return"))
    assert times_bought(recorder, customer, again) == ""


def test_an_event_may_lie_ahead_by_less_than_a_day(recorder: Server):
    now = datetime.now(UTC)
    near, far = (now + timedelta(seconds=AHEAD_SECONDS + off) for off in (-600, 600))
    answer = recorder.report(event("early", "p000", near), event("early", "p004", far))
    assert answer["accepted"] == 1
    assert [one["index"] for one in answer["rejected"]] == [1]
    assert answer["rejected"][0]["error"]["field"] == "events[1].at"


@pytest.mark.parametrize(
    "ahead",
    [["purchase"], ["view"], ["dismissal"], ["purchase", "view", "purchase"], ["view", "dismissal", "purchase"]],
)
def test_an_event_ahead_of_the_clock_does_not_void_what_follows(recorder: Server, ahead: list[str]):
    customer = f"hasty-{'-'.join(ahead)}"
    start = datetime.now(UTC).replace(microsecond=0)
    shown = ids(recorder.recommend(customer, at=start, limit=20))
    for hours, kind in enumerate(ahead, 5):
        recorder.report(event(customer, shown[hours], start + timedelta(hours=hours), kind))
    best = ids(recorder.recommend(customer, at=start))[0]
    recorder.report(event(customer, best, start, "add_to_cart"))
    assert best not in ids(recorder.recommend(customer, at=None))


def test_a_basket_that_was_bought_ahead_of_the_clock_is_no_basket(recorder: Server):
    customer, start = "hasty-buyer", datetime.now(UTC).replace(microsecond=0)

    def shown() -> list[str]:
        """All but the last of what is eligible, where a basket lies."""
        return ids(recorder.recommend(customer, at=None, limit=100))

    best = shown()[0]
    recorder.report(event(customer, best, start, "add_to_cart"))
    assert best not in shown()
    recorder.report(event(customer, best, start + timedelta(hours=20)))
    assert best in shown()


def test_a_thousand_events_are_taken_at_once(recorder: Server):
    events = [event("collector", f"p{number % 120:03d}", SOON) for number in range(1_000)]
    assert recorder.report(*events)["accepted"] == 1_000
    assert recorder.recommend("collector", at=LATER)["personalised"]


def test_what_becomes_of_events_is_counted(recorder: Server):
    def counts() -> list[float]:
        return [recorder.metric("opportune_events_total", outcome=one) or 0 for one in outcomes]

    outcomes = ("accepted", "duplicate", "rejected")
    before = counts()
    good = event("counted", "p000", SOON)
    recorder.report(good, good, event("counted", "p000", SOON, location="atlantis"), event("counted", "p004", SOON))
    assert [after - one for after, one in zip(counts(), before, strict=True)] == [2, 1, 1]


def test_the_same_events_in_any_order_at_the_same_time_are_stored_once(postgres: Postgres):
    async def send(store: EventStore) -> None:
        for number in range(10):  # writers that wait for each other deadlock about every other time
            events = [
                Event(event_id=f"{number}-{one}", type="view", customer_id="crowd", at=SOON) for one in range(1_000)
            ]
            shuffled = [random.Random(seed).sample(events, len(events)) for seed in range(8)]
            stored = await asyncio.gather(*(store.add(some, int(SOON.timestamp())) for some in shuffled))
            assert sum(map(len, stored)) == 1_000

    async def connect() -> None:
        url = await asyncio.to_thread(postgres.database)
        await prepare(url)
        store = EventStore(url, Invalidations(1))
        async with store.connected():
            await send(store)

    asyncio.run(connect())


def test_events_racing_with_first_reads_of_their_customer_all_count_once(recorder: Server):
    def reader_and_writer(number: int) -> str:
        customer = f"racer-{number}"
        with ThreadPoolExecutor(4) as racers:
            reads = [racers.submit(recorder.recommend, customer, at=LATER) for _ in range(2)]
            moments = [SOON - timedelta(seconds=place) for place in range(3)]
            writes = [racers.submit(recorder.report, event(customer, "p000", moment)) for moment in moments]
            assert [write.result()["accepted"] for write in writes] == [1, 1, 1]
            for read in reads:
                read.result()
        return times_bought(recorder, customer, "p000")

    assert {reader_and_writer(number) for number in range(40)} == {"Bought 3 times before."}


# The replayed clock


@pytest.fixture(scope="module")
def replaying(recorder: Server, postgres: Postgres) -> Generator[Server]:
    server = Server(recorder.store, "--database", postgres.database(), "--clock", "replay")
    yield server
    server.stop()


def promoted_now(server: Server) -> set[str]:
    return set(ids(server.recommend(None, "mailer", "north", at=None, limit=100)))


def test_a_replay_takes_now_from_the_newest_moment_it_has_seen(replaying: Server):
    def promoted(at: datetime) -> set[str]:
        return set(ids(replaying.recommend(None, "mailer", "north", at=at, limit=100)))

    first = promoted_now(replaying)
    assert first == promoted(UNTIL)
    second = promoted(UNTIL + timedelta(weeks=1))
    assert second
    assert not second & first
    assert promoted_now(replaying) == second
    assert promoted(UNTIL) == first
    assert promoted_now(replaying) == second, "now never goes back"
    far = UNTIL + timedelta(weeks=2)
    answer = replaying.report(event("time-traveller", "p000", far))
    assert answer["accepted"] == 1
    assert promoted_now(replaying) == set(), "an event moves now on too"


def test_a_refused_request_does_not_move_the_replay_on(replaying: Server):
    replaying.client.post("/v1/recommend", json={"context": {"channel": "smoke-signal", "at": "2999-01-01T00:00:00Z"}})
    wrong = event("time-traveller", "p000", datetime(2999, 1, 1, tzinfo=UTC), location="atlantis")
    assert len(replaying.report(wrong)["rejected"]) == 1
    assert ids(replaying.recommend(None, kinds=["offer"], at=None, limit=100)), "in 2999 every offer has ended"


# The event store is away


@pytest.fixture
def own_postgres(anybodys: Path) -> Generator[Postgres]:
    postgres = Postgres(anybodys / "brittle")
    yield postgres
    postgres.close()


@pytest.fixture
def dependent(own_store: Path, own_postgres: Postgres) -> Generator[Server]:
    server = Server(own_store, "--database", own_postgres.database())
    yield server
    server.stop()


def test_without_its_event_store_the_service_answers_from_the_snapshot_and_recovers(
    dependent: Server, own_postgres: Postgres, own_store: Path
):
    before = dependent.recommend("c001", "store", "north")
    assert not before["degraded"]
    own_postgres.stop()

    eventually(lambda: dependent.client.get("/readyz").json()["event_store"] != "answers", "the outage to be seen")
    ready = dependent.client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True), "recommendations can be given"
    assert ready.json()["event_store"] == "does not answer"
    strict = dependent.client.get("/readyz?strict")
    assert (strict.status_code, strict.json()["ready"]) == (503, False)
    assert not strict.headers.get("content-type", "").startswith("application/problem")
    assert dependent.client.get("/healthz").status_code == 200
    fresh = dependent.recommend("c017", "store", store(17))
    assert (fresh["degraded"], fresh["personalised"]) == (True, True)
    assert ids(fresh)[0] == favourite(17)
    assert dependent.recommend("c001", "store", "north")["items"] == before["items"]
    assert dependent.recommend("c001", kinds=["offer"])["degraded"], "redemptions have never been counted"
    assert not dependent.recommend(None)["degraded"]
    unlucky = event("c017", "p111", SOON)
    refused = dependent.client.post("/v1/events", json={"events": [unlucky]})
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["type"] == "urn:opportune:problem:event-store-unavailable"
    for told in (refused.text, dependent.client.get("/readyz").text):
        assert not any(inside in told for inside in ("postgres", "PostgreSQL", "onnect", "/tmp", own_store.name))
    assert dependent.client.get("/readyz").json()["refused_events"]["count"] == 1
    assert dependent.metric("opportune_events_total", outcome="refused") == 1

    own_postgres.start()
    eventually(lambda: dependent.client.get("/readyz").json()["event_store"] == "answers", "the event store to be back")
    assert not dependent.recommend("c017", "store", store(17))["degraded"]
    assert dependent.client.get("/readyz?strict").status_code == 503, "nothing has been stored since the refusal"
    assert dependent.report(unlucky)["accepted"] == 1
    assert dependent.client.get("/readyz").json()["refused_events"] is None
    assert dependent.client.get("/readyz?strict").status_code == 200
    assert times_bought(dependent, "c017", "p111") == "Bought once before."
