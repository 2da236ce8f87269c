"""Three recommend calls to a running demo service, printed with their answers, and a change that they show at once.

Customer 1029 and store 329 are real ids of Complete Journey: 1029 shops there more often than anywhere else. Products
have no names there; department, type and size stand for them.
"""

import json
import sys
import time
from collections.abc import Iterable
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

READY_WITHIN_S = 60.0
"""Long enough for a first start, which also creates the embedded database."""

ATTRIBUTES = ("department", "type", "size")
"""What stands for a product's name."""

LOOKED_AT, SPELLED_OUT = 20, 3
"""How many of an offer's products are looked at for names, and how many different names are shown."""

Answer = dict[str, Any]

SAMPLES: tuple[tuple[str, dict[str, object]], ...] = (
    (
        "A known customer at their usual store: what that store carries.",
        {"customer_id": "1029", "context": {"channel": "store", "location": "329"}, "limit": 5},
    ),
    (
        "The same customer: the coupons most likely to be redeemed.",
        {"customer_id": "1029", "context": {"channel": "store", "location": "329"}, "kinds": ["offer"], "limit": 5},
    ),
    (
        "An anonymous visitor on the web: what is popular.",
        {"context": {"channel": "web"}, "limit": 5},
    ),
)


def run(url: str, admin: str | None = None) -> int:
    """Wait until the service at ``url`` is ready, ask the three samples, print requests and answers.

    Args:
        url: of the service.
        admin: of its management API, over which the best offer is paused, and resumed afterwards; None if it has none.

    Returns:
        0 when every sample was answered, 1 when the service never became ready or an answer was not 200.
    """
    if not _wait_until_ready(url):
        sys.stderr.write(f"{url} was not ready within {READY_WITHIN_S:.0f} s\n")
        return 1
    try:
        for title, request in SAMPLES:
            items = _show(url, title, request)
            if admin is not None and items and items[0]["kind"] == "offer":
                _pause(url, admin, request, items[0]["id"])
    except (OSError, HTTPException, ValueError) as error:
        sys.stderr.write(f"{url} did not answer as expected: {error}\n")
        return 1
    return 0


def _show(url: str, title: str, request: dict[str, object]) -> list[Answer]:
    """Ask one sample, print request and answer, and return its items."""
    asked = {**request, "include": ["attributes", "products"]}
    sys.stdout.write(f"\n{title}\nPOST {url}/v1/recommend\n{json.dumps(asked)}\n")
    items = _recommend(url, asked)
    names = _names(url, items)
    for item in items:
        reasons = " ".join(reason["text"] for reason in item["reasons"])
        sys.stdout.write(f"{item['rank']:>3}  {item['score']:.3f}  {_line(item, names)}\n{'':12}{reasons}\n")
    sys.stdout.flush()
    return items


def _pause(url: str, admin: str, request: dict[str, object], offer: str) -> None:
    """Pause an offer over the management API, ask once more, and resume it.

    Raises:
        ValueError: a status is not 200, or the offer is still shown.
    """
    sys.stdout.write(f"\nThe best of them is paused:\nPOST {admin}/v1/offers/{offer}:pause\n")
    seq = _act(admin, offer, "pause")
    try:
        items = _show(url, "The next answer does without it.", {**request, "at_least": seq})
    finally:
        _act(admin, offer, "resume")
    if offer in {item["id"] for item in items}:
        raise ValueError(f"expected no offer {offer}, which is paused; got {items}")
    sys.stdout.write(f"\nIt is resumed:\nPOST {admin}/v1/offers/{offer}:resume\n")


def _act(admin: str, offer: str, action: str) -> int:
    """Pause or resume an offer, and return the change's seq."""
    status, answer = _call(admin, "POST", f"/v1/offers/{offer}:{action}", "{}")
    if status != 200:
        raise ValueError(f"expected status 200, got {status}: {answer}")
    return json.loads(answer)["seq"]


def _recommend(url: str, request: Answer) -> list[Answer]:
    """Return the items of the answer to a recommend request; ask again while a change is not there yet.

    Raises:
        ValueError: the status of the answer is not 200.
    """
    give_up_at = time.monotonic() + READY_WITHIN_S
    status, answer = _call(url, "POST", "/v1/recommend", json.dumps(request))
    while status == 503 and time.monotonic() < give_up_at:
        time.sleep(0.05)
        status, answer = _call(url, "POST", "/v1/recommend", json.dumps(request))
    if status != 200:
        raise ValueError(f"expected status 200, got {status}: {answer}")
    return json.loads(answer)["items"]


def _names(url: str, items: Iterable[Answer]) -> dict[str, str]:
    """Return texts that stand for the names of each offer's first products, by product id."""
    covered = sorted({one for item in items for one in item.get("products", [])[:LOOKED_AT]})
    if not covered:
        return {}
    request = {"context": {"channel": "web"}, "items": covered, "limit": len(covered), "include": ["attributes"]}
    return {item["id"]: _name(item["attributes"]) for item in _recommend(url, request)}


def _line(item: Answer, names: dict[str, str]) -> str:
    """Describe one item: a product by its name, an offer by its products and its last day."""
    if item["kind"] == "product":
        return f"{item['id']}  {_name(item['attributes'])}"
    different = dict.fromkeys(names[one] for one in item["products"][:LOOKED_AT])
    covers = f"{item['products_total']} products, such as {'; '.join(list(different)[:SPELLED_OUT])}"
    return f"{item['id']}  {item['attributes']['kind']} until {item['attributes']['ends'][:10]} on {covers}"


def _name(attributes: dict[str, str]) -> str:
    return ", ".join(attributes[name] for name in ATTRIBUTES if name in attributes) or "without attributes"


def _wait_until_ready(url: str) -> bool:
    give_up_at = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < give_up_at:
        try:
            if _call(url, "GET", "/readyz")[0] == 200:
                return True
        except (OSError, HTTPException):
            pass  # nothing listens yet
        time.sleep(0.1)
    return False


def _call(url: str, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    """Return status and body of one HTTP exchange.

    It uses ``http.client`` because a proxy set in the environment must not see local calls.
    """
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "127.0.0.1", address.port or 80, timeout=10)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()
