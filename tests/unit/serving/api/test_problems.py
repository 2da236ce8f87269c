from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from litestar import Request, Response
from litestar.exceptions import InternalServerException, MethodNotAllowedException, NotFoundException

from embeddings.errors import (
    CatalogueBehind,
    CorruptBundle,
    EventStoreUnavailable,
    InvalidChanges,
    InvalidInput,
    InvalidRule,
    InvalidTables,
    OpportuneError,
    Overloaded,
    RepeatedChanges,
    RuleFault,
    UnknownReference,
)
from serving.api.problems import STATUSES, Fault, Problem, answer_error, problem_of

REQUEST = cast("Request[Any, Any, Any]", SimpleNamespace(method="GET", url=SimpleNamespace(path="/v1/model")))
ARGUMENTS: dict[type[OpportuneError], tuple[Any, ...]] = {
    InvalidInput: ("limit", "expected less"),
    UnknownReference: ("limit", "expected less"),
    InvalidChanges: ([(3, InvalidInput("price", "expected less"))],),
    RepeatedChanges: ([(3, InvalidInput("id", "expected each once"))],),
    InvalidRule: ([RuleFault(0, 1, 1, 1, "`=`", "a condition")],),
    InvalidTables: (["events.csv: secret"],),
    CorruptBundle: (Path("/secret/place"), "secret"),
}


def tree(root: type[OpportuneError] = OpportuneError) -> Iterator[type[OpportuneError]]:
    """Every error of the product; errors that tests or training define for themselves do not reach HTTP."""
    if root.__module__.partition(".")[0] in {"embeddings", "serving"}:
        yield root
    for child in root.__subclasses__():
        yield from tree(child)


def answer(error: Exception) -> tuple[Response[bytes], Problem]:
    response = answer_error(REQUEST, error)
    return response, msgspec.json.decode(response.content, type=Problem)


def test_every_error_of_the_tree_has_a_status_and_nothing_else_has():
    assert set(STATUSES) == set(tree())


@pytest.mark.parametrize("kind", list(STATUSES), ids=lambda kind: kind.__name__)
def test_every_error_leaves_as_whole_problem_details(kind: type[OpportuneError]):
    response, problem = answer(kind(*ARGUMENTS.get(kind, ("something",))))
    assert response.media_type == "application/problem+json"
    assert response.status_code == problem.status == STATUSES[kind]
    assert problem.type.startswith("urn:opportune:problem:")
    assert problem.title
    assert problem.detail
    assert ("retry-after" in {name.lower() for name in response.headers}) == (problem.status == 503)


def test_types_are_distinct_so_that_programs_can_tell_problems_apart():
    found = [problem_of(kind(*ARGUMENTS.get(kind, ("something",)))).type for kind in STATUSES]
    assert len(set(found)) == len(found)


def test_every_fault_of_a_batch_is_named_with_its_place():
    faults = [(3, InvalidInput("price", "expected less")), (4, UnknownReference("audience", "expected a segment"))]
    problem = problem_of(InvalidChanges(faults))
    assert problem.field == "[3].price"
    assert problem.errors == [Fault(3, "price", "expected less"), Fault(4, "audience", "expected a segment")]
    assert "2 faults" in problem.detail


def test_of_many_faults_the_first_are_named_and_the_others_counted():
    faults = [(place, InvalidInput("price", "expected less")) for place in range(1_003)]
    problem = problem_of(InvalidChanges(faults))
    assert problem.errors == [Fault(place, "price", "expected less") for place in range(1_000)]
    assert problem.errors_left_out == 3
    assert "1,003 faults" in problem.detail
    assert problem_of(InvalidChanges(faults[:1_000])).errors_left_out is msgspec.UNSET


def test_a_wrong_value_is_named_with_what_was_expected():
    assert problem_of(UnknownReference("context.channel", "expected web")) == Problem(
        "urn:opportune:problem:unknown-reference", "Unknown reference", 422, "context.channel: expected web",
        "context.channel",
    )  # fmt: skip


@pytest.mark.parametrize("error", [CorruptBundle(Path("/secret"), "secret"), RuntimeError("secret")])
def test_what_went_wrong_inside_is_for_the_log_alone(error: Exception, caplog: pytest.LogCaptureFixture):
    response, problem = answer(error)
    assert problem.status == 500
    assert b"secret" not in response.content
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        *(kind(*ARGUMENTS.get(kind, ("secret",))) for kind in STATUSES if kind not in (Overloaded, CatalogueBehind)),
        InternalServerException("secret"),
        OSError(24, "secret", "/secret"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_answer_tells_of_the_machine_or_of_the_database(error: Exception):
    response, problem = answer(error)
    if problem.status >= 500:
        assert b"secret" not in response.content
        assert problem.detail


def test_the_database_being_away_is_told_to_the_caller():
    _, problem = answer(EventStoreUnavailable("connection to 10.0.0.7 refused"))
    assert "database does not answer" in problem.detail
    assert "10.0.0.7" not in problem.detail


def test_what_overloads_is_told_to_the_caller():
    assert problem_of(Overloaded("32 requests are under way")).detail == "32 requests are under way"


def test_the_frameworks_own_errors_become_problems_and_keep_their_headers():
    response, problem = answer(MethodNotAllowedException(headers={"allow": "POST"}))
    assert (problem.status, problem.title) == (405, "Method Not Allowed")
    assert response.headers["allow"] == "POST"
    assert answer(NotFoundException())[1].type == "urn:opportune:problem:not-found"
