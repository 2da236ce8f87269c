"""Whatever is called in whatever order, the management API answers as a dictionary would."""

import json
from typing import Any

import httpx
import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from tests.integration.test_admin import admin, at, done, managed, newest

__all__ = ["admin", "managed"]

IDS = st.sampled_from(["a", "b/c", "ü"])
FIELDS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "price": st.sampled_from([None, 1, 2.5]),
        "in_stock": st.booleans(),
        "attributes": st.dictionaries(st.sampled_from(["brand", "type"]), st.sampled_from(["x", "y"]), max_size=2),
    },
)
CALLS = st.one_of(
    st.tuples(st.just("PUT"), IDS, FIELDS, st.sampled_from([None, "present", "stale", "none"])),
    st.tuples(st.just("PATCH"), IDS, FIELDS, st.sampled_from([None, "present", "stale"])),
    st.tuples(st.just("DELETE"), IDS, st.just({}), st.sampled_from([None, "present", "stale"])),
    st.tuples(st.just("BATCH"), IDS, FIELDS, st.none()),
)
USUAL: dict[str, Any] = {
    "attributes": {},
    "price": None,
    "recommendable": True,
    "locations": [],
    "in_stock": True,
    "out_of_stock_at": [],
    "withdrawn_at": [],
}


class Oracle:
    """Products as a dictionary: of each its state and the number of its last change."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.products: dict[str, tuple[int, dict[str, Any]]] = {}
        self.log: list[tuple[str, dict[str, Any] | None]] = []

    def call(self, method: str, one: str, fields: dict[str, Any], expects: str | None) -> int:
        """Do what a call does, and return the status that it is answered with."""
        found = self.products.get(one)
        if expects == "none" and found is not None:
            return 412
        if expects in ("present", "stale") and (found is None or expects == "stale"):
            return 412
        if method in ("PATCH", "DELETE") and found is None:
            return 404
        if method == "DELETE":
            self._change(one, None)
            return 200
        before: dict[str, Any] = found[1] if found is not None and method == "PATCH" else USUAL
        attributes: dict[str, str] = before["attributes"] | fields.get("attributes", {})
        state = {**before, **fields, "id": one, "attributes": attributes}
        if found is None or found[1] != state:
            self._change(one, state)
        return 200

    def _change(self, one: str, state: dict[str, Any] | None) -> None:
        self.seq += 1
        self.log.append((one, state))
        self.products.pop(one, None)
        if state is not None:
            self.products[one] = self.seq, state


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(CALLS, max_size=12))
def test_calls_in_any_order_leave_what_a_dictionary_would_hold(
    admin: httpx.Client, calls: list[tuple[str, str, dict[str, Any], str | None]]
):
    for item in done(admin.get("/v1/products"))["items"]:
        done(admin.delete(at("products", item["body"]["id"])))
    start = newest(admin)
    oracle = Oracle(start)
    for method, one, fields, expects in calls:
        held = oracle.products.get(one)
        headers = {
            None: {},
            "none": {"If-None-Match": "*"},
            "present": {"If-Match": f'"{held[0] if held else 0}"'},
            "stale": {"If-Match": f'"{held[0] - 1 if held else 0}"'},
        }[expects]
        if method == "BATCH":
            answer = admin.post("/v1/products:batch", json=[{**fields, "id": one}])
        else:
            content = None if method == "DELETE" else json.dumps(fields)
            headers |= {"Content-Type": "application/json"}
            answer = admin.request(method, at("products", one), content=content, headers=headers)
        status = oracle.call(method, one, fields, expects)
        assert answer.status_code == status, answer.text
        if status == 200:
            assert answer.json()["seq"] == oracle.seq
    items = done(admin.get("/v1/products"))["items"]
    newest_first = sorted(oracle.products.values(), key=lambda held: -held[0])
    assert [(item["seq"], item["body"]) for item in items] == newest_first
    log = done(admin.get("/v1/changes", params={"after": start}))["items"]
    assert [(one["id"], one["withdrawn"]) for one in log] == [(one, state is None) for one, state in oracle.log]
