"""Results for people: a table on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable


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
        """Print it."""
        Console().print(self._table)
