"""Publication of a release into a store."""

import logging
from collections.abc import Callable
from pathlib import Path

from embeddings.errors import OpportuneError
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore

_log = logging.getLogger("opportune.train")


def publish(bundles: BundleStore, write: Callable[[Path], Manifest], keep: int) -> Manifest:
    """Stage a release, publish it, and delete older ones.

    Args:
        bundles: the store.
        write: writes bundle and histories into a staged folder, with their manifests.
        keep: how many of the newest versions stay.

    Raises:
        CorruptBundle: the release was damaged before; nothing was published.
        OSError: something could not be written; nothing was published.
    """
    with bundles.lock():
        staged = bundles.stage()
        manifest = write(staged)
        bundles.publish(staged)
        try:
            for version in bundles.prune(keep):
                _log.info("pruned %s", version)
        except (OpportuneError, OSError) as error:  # the release is published nonetheless
            _log.warning("older versions than %s stay: %s", manifest.version, error)
    return manifest
