"""What stands beside a slot in tests that have no database."""

from collections.abc import Awaitable, Callable

from serving.catalogue.follower import CatalogueFollower
from serving.slot import ViewSlot
from serving.view import View


def publishing(slot: ViewSlot) -> Callable[[View], Awaitable[None]]:
    """Publishes views as they are: nothing has changed since their releases were made."""

    async def publish(view: View) -> None:
        slot.publish(view)

    return publish


def followed(slot: ViewSlot) -> CatalogueFollower:
    """A follower that is not started."""
    return CatalogueFollower(slot, "postgresql://nobody@127.0.0.1:1/nothing")
