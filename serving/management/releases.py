"""``/v1/releases``: the published releases, and which one is served; the channels that the one in service knows."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from embeddings.errors import CorruptBundle, EmptyStore
from embeddings.release.bundle import CATALOG, FORMAT_VERSION
from embeddings.release.store import BundleStore
from serving.api.decode import JSON
from serving.api.problems import Conflict, UnknownResource
from serving.management.calls import Answer, Asked, Call

_log = logging.getLogger("opportune.serve")


class Release(Struct, frozen=True):
    """A published release.

    Attributes:
        current: whether it is the one to serve.
        servable: whether it is of the format that this version reads.
    """

    version: str
    created_at: datetime
    data_cut_off: datetime
    current: bool
    servable: bool


class ReleasesResponse(Struct, frozen=True):
    """The published releases, the newest first."""

    releases: list[Release]


class Serving(Struct, frozen=True):
    """The release to serve from now on."""

    version: str


class _Words(Struct, frozen=True):
    """What a catalogue's words are read for here."""

    channels: dict[str, str]


class Releases:
    """The store of releases, as the management API sees it.

    Args:
        store: the folder that training publishes into.
    """

    def __init__(self, store: Path) -> None:
        self._store = BundleStore(store)
        self._known: tuple[str, Sequence[str]] | None = None

    def channels(self) -> Sequence[str]:
        """Return the channels of the release that is current; of the last one that was, if that cannot be read.

        Raises:
            EmptyStore: there is no release.
            CorruptBundle: it cannot be read.
        """
        try:
            version = self._store.current()
            if self._known is None or self._known[0] != version:
                path = self._store.bundle(version) / CATALOG / "words.json"
                self._known = version, tuple(msgspec.json.decode(path.read_bytes(), type=_Words).channels)
        except (OSError, msgspec.MsgspecError, EmptyStore, CorruptBundle):
            if self._known is None:
                raise
        return self._known[1]

    def listed(self) -> list[Release]:
        """Return the published releases, the newest first."""
        current = self._store.current()
        return [
            Release(
                version=one.version,
                created_at=one.created_at,
                data_cut_off=one.data_cut_off,
                current=one.version == current,
                servable=one.format_version == FORMAT_VERSION,
            )
            for one in reversed(self._store.releases())
        ]

    def serve(self, version: str) -> None:
        """Make a release the current one; servers take it over within a second.

        Raises:
            UnknownResource: there is no such release.
            Conflict: it is damaged, or of another format.
        """
        held = self._store.held()
        if version not in held:
            raise UnknownResource(f"the store holds no version {version!r}; it holds {', '.join(held)}")
        try:
            with self._store.lock():
                self._store.rollback(version)
        except CorruptBundle as error:
            raise Conflict(f"version {version} cannot be served: {error.path.name}: {error.problem}") from error


def calls(releases: Releases) -> list[Call]:
    """Return the calls about releases."""

    async def listed(_asked: Asked) -> Answer:
        """The releases that lie in the store, the newest first."""
        return Answer(ReleasesResponse(await asyncio.to_thread(releases.listed)))

    async def serve(asked: Asked) -> Answer:
        """Roll back or forward: every server of the store takes the release over within a second.

        Its files are verified first, and it waits while a release is being published.
        """
        await asyncio.to_thread(releases.serve, asked.id)
        _log.info("%s made %s the release to serve", asked.actor, asked.id)
        return Answer(Serving(asked.id))

    return [
        Call("GET", "/v1/releases", listed, ReleasesResponse, "Releases in the store"),
        Call("POST", "/v1/releases/{id}:serve", serve, Serving, "Serve a release", accepts=(JSON,)),
    ]
