"""Three recommend calls to a running demo service, printed with their answers.

Customer 1029 and store 329 are real ids of Complete Journey: 1029 shops there more often than anywhere else.
"""

import json
import sys
import time
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

READY_WITHIN_S = 60.0
"""Long enough for a first start, which also creates the embedded database."""

SAMPLES: tuple[tuple[str, dict[str, object]], ...] = (
    (
        "A known customer at their usual store: what that store carries.",
        {"customer_id": "1029", "context": {"channel": "store", "location": "329"}, "limit": 5},
    ),
    (
        "The same customer on the mailer channel: what is in that store's mailer now, if any.",
        {"customer_id": "1029", "context": {"channel": "mailer", "location": "329"}, "limit": 5},
    ),
    (
        "An anonymous visitor on the web: what is popular.",
        {"context": {"channel": "web"}, "limit": 5},
    ),
)


def run(url: str) -> int:
    """Wait until the service at ``url`` is ready, ask the three samples, print requests and answers.

    Returns:
        0 when every sample was answered, 1 when the service never became ready or an answer was not 200.
    """
    if not _wait_until_ready(url):
        sys.stderr.write(f"{url} was not ready within {READY_WITHIN_S:.0f} s\n")
        return 1
    for title, request in SAMPLES:
        try:
            status, answer = _call(url, "POST", "/v1/recommend", json.dumps(request))
        except (OSError, HTTPException) as error:
            sys.stderr.write(f"{url} did not answer: {error!r}\n")
            return 1
        sys.stdout.write(f"\n{title}\nPOST {url}/v1/recommend\n{json.dumps(request)}\n{_pretty(answer)}\n")
        sys.stdout.flush()
        if status != 200:
            sys.stderr.write(f"expected status 200, got {status}\n")
            return 1
    return 0


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
    """One HTTP exchange; ``http.client`` because a proxy set in the environment must not see local calls."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "127.0.0.1", address.port or 80, timeout=10)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def _pretty(answer: str) -> str:
    """The answer indented, or as it came when it is not JSON."""
    try:
        return json.dumps(json.loads(answer), indent=2, ensure_ascii=False)
    except ValueError:
        return answer
