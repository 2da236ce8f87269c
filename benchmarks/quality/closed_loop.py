"""Suite ``loop``: what it is worth to retrain every month on what the service heard, beside never doing so.

Complete Journey is loaded into a database, without its events since 2017-09-01, and trained on. Its offers, audiences
and promotions are there from the start for both, also those of later. Every later purchase and redemption is sent to
two services in the order of time. One of them is retrained from its database at the first of each month; the other
keeps the first release. Both hear everything, so what differs is the release alone. From the first retraining on they
are asked the same: on each day on which a household redeems a coupon, and for its first basket of each month.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from zoneinfo import ZoneInfo

import asyncpg
import polars as pl
from rich.progress import track

from benchmarks.harness.release import own_state
from benchmarks.harness.report import write_report
from benchmarks.quality.coupon_days import CouponDay, K, coupon_days, judge_offers
from benchmarks.quality.coupons import happened
from benchmarks.quality.journey import ZONE, Basket, first_baskets, last_transactions, purchase_lines, read_coupons
from benchmarks.quality.outcome import Comparison, Outcome, Section, judge, section
from benchmarks.quality.service import Event, Service, replaying_service
from benchmarks.quality.tables import markdown, print_section
from embeddings.database.postgres import database
from embeddings.release.store import BundleStore

MONTHS = (date(2017, 9, 1), date(2017, 10, 1), date(2017, 11, 1), date(2017, 12, 1))
"""The first is that of the first release."""
RETRAINED, KEPT = "retrained", "never retrained"
_PATIENCE_SECONDS = 120
_REFUSED = 3
"""How a retraining ends whose gate keeps the release before it."""

_FORGET = (
    "DELETE FROM event_keys WHERE event_id IN (SELECT event_id FROM events WHERE at >= $1)",
    "DELETE FROM events WHERE at >= $1",
)


class Question(NamedTuple):
    """A question, and when it is asked."""

    at: datetime
    about: CouponDay | Basket

    @property
    def offers(self) -> bool:
        """Return whether it asks for offers."""
        return isinstance(self.about, CouponDay)


def run(store: Path, json_file: Path) -> dict[str, Section]:
    """Load, train, replay and ask; print and write what was found.

    Args:
        store: a folder of the suite's own; what was there before it is not used.
        json_file: the report; its tables go beside it, as Markdown.
    """
    store.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="loop-", dir=store, ignore_cleanup_errors=True) as name:
        questions, answers = _replay(Path(name))
    found = {
        f"{kind}{when}": section(
            _outcome(questions, answers, offers=offers, month=month), "monthly", _midnight(MONTHS[0])
        )
        for kind, offers in (("coupons", True), ("next baskets", False))
        for when, month in [("", None), *((f", {one:%Y-%m}", one) for one in MONTHS[1:])]
    }
    for name, one in found.items():
        print_section(name, one)
    write_report(json_file, {"suite": "loop", "dataset": "complete-journey", "tasks": found})
    json_file.with_suffix(".md").write_text(markdown(found))
    return found


def _replay(store: Path) -> tuple[list[Question], dict[str, list[list[str]]]]:
    """Return the questions, and what each of the two services answered."""
    begin = _midnight(MONTHS[0])
    _command("training.load", "--data", "complete-journey", "--store", str(store))
    lines, coupons, last = purchase_lines(), read_coupons(), last_transactions()
    history = happened(lines, coupons, last).filter(pl.col("at") >= begin)
    days = coupon_days(coupons, last, MONTHS[1])
    baskets = [basket for month in MONTHS[1:] for basket in first_baskets(lines.filter(_in_month(month)))]
    questions = sorted(
        [Question(one.at, one) for one in (*days, *baskets)], key=lambda one: (one.at, one.about.household)
    )
    answers: dict[str, list[list[str]]] = {RETRAINED: [], KEPT: []}
    with ExitStack() as servers:
        with database(None, store) as found:
            asyncio.run(_forget(found.url, begin))
        _retrain(store)
        first = BundleStore(store).current()
        kept = servers.enter_context(own_state(store, first))
        asked = {
            name: servers.enter_context(replaying_service(folder))
            for name, folder in ((RETRAINED, store), (KEPT, kept))
        }
        sent = 0
        trained = MONTHS[0]
        for question in track(questions, "replaying four months", transient=True):
            if _month(question.at) != trained:
                trained = _month(question.at)
                sent = _report(asked, history, sent, _midnight(trained))
                for service in asked.values():
                    service.rest()
                _retrain(store)
                _await(asked[RETRAINED], BundleStore(store).current())
            sent = _report(asked, history, sent, question.at)
            for name, service in asked.items():
                answers[name].append(_ask(service, question))
    return questions, answers


def _ask(service: Service, question: Question) -> list[str]:
    one = question.about
    kind = "offer" if question.offers else "product"
    return service.recommend(one.household, "store", one.store, one.at, K, kind=kind)


def _report(services: dict[str, Service], history: pl.DataFrame, sent: int, until: datetime) -> int:
    """Report to all services what happened before a moment, but for what they know; return how much that is."""
    earlier = int(history["at"].search_sorted(until, side="left"))
    events = [Event(**row) for row in history.slice(sent, earlier - sent).iter_rows(named=True)]
    for service in services.values():
        service.report(events)
    return earlier


def _outcome(
    questions: Sequence[Question], answers: dict[str, list[list[str]]], *, offers: bool, month: date | None
) -> Outcome:
    """Judge the answers to the questions of one kind, of one month or of all."""
    places = [
        place
        for place, one in enumerate(questions)
        if one.offers == offers and (month is None or _month(one.at) == month)
    ]
    about = [questions[place].about for place in places]
    scores = {
        name: judge_offers(some, [one for one in about if isinstance(one, CouponDay)])
        if offers
        else judge(some, [one.products for one in about if isinstance(one, Basket)], K)
        for name, some in ((name, [given[place] for place in places]) for name, given in answers.items())
    }
    return Outcome(
        households=[one.household for one in about],
        scores=scores,
        ours=None,
        comparisons=[Comparison("difference", RETRAINED, KEPT, metric) for metric in scores[RETRAINED]],
        left_out={},
        facts={},
    )


def _retrain(store: Path) -> None:
    _command("training.retrain", "--once", "--store", str(store), ends=(0, _REFUSED))


def _command(module: str, *arguments: str, ends: Sequence[int] = (0,)) -> None:
    """Run a command of this package; raise RuntimeError unless it ends with a code that is expected."""
    code = subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode  # noqa: S603 - our own
    if code not in ends:
        raise RuntimeError(f"{module} ended with {code}")


def _await(service: Service, version: str) -> None:
    """Wait until a service answers with a version; raise RuntimeError if it does not come."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while service.version() != version:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{version} did not come into service within {_PATIENCE_SECONDS} s")
        time.sleep(0.1)


async def _forget(url: str, begin: datetime) -> None:
    """Delete the events from a moment on: those that are to be sent."""
    connection = await asyncpg.connect(url)
    try:
        for statement in _FORGET:
            await connection.execute(statement, begin)
    finally:
        await connection.close()


def _in_month(month: date) -> pl.Expr:
    return pl.col("at").dt.convert_time_zone(ZONE).dt.date().dt.truncate("1mo") == month


def _month(at: datetime) -> date:
    return at.astimezone(ZoneInfo(ZONE)).date().replace(day=1)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(ZONE)).astimezone(UTC)
