"""Results: JSON for programs, and a table on the terminal for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table as RichTable


def write_report(json_file: Path, report: Mapping[str, object]) -> None:
    """Write everything that was measured, making the folder if it is not there."""
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


class Table:
    """A titled table, its first column of names and the others of figures."""

    def __init__(self, title: str, columns: Sequence[str]) -> None:
        self._table = RichTable(title=title)
        for place, column in enumerate(columns):
            self._table.add_column(column, justify="right" if place else "left")

    def add(self, *cells: str) -> None:
        """Add a row."""
        self._table.add_row(*cells)

    def print(self) -> None:
        """Print the table on the terminal."""
        Console().print(self._table)
