"""Every error this project raises on purpose, as one small tree that knows no HTTP.

OpportuneError
├── InvalidInput            the caller's value is wrong; names the field and what was expected
│   └── UnknownReference    the value is well-formed but names nothing in the catalogue
├── InvalidChanges          some of a batch of changes are wrong; carries every fault found
│   └── RepeatedChanges     two of a batch are of one thing
├── InvalidRule             a rule cannot be read or makes no sense; carries every fault found, with its place
├── StillReferred           what was to be withdrawn is what live offers refer to
├── Stale                   a change was made of another state than the present one
├── InvalidTables           the input tables break the data contract; carries every problem found
├── CorruptBundle           a file of a published version is missing, truncated or altered
├── ReleaseClosed           a release was asked for something after it had been closed
├── OutdatedView            what was to be served had been overtaken by something newer
├── EmptyStore              nothing has been published, or not the version asked for
├── RefusedByGate           a trained model is worse than the baseline it has to beat
├── DeviceUnavailable       a device was asked for by name and is not there
├── UnsupportedSearch       an index was asked for what it cannot answer exactly
├── EventStoreUnavailable   the event store cannot be reached, so nothing can be acknowledged
├── CatalogueBehind         a request wants a change of the catalogue to be seen that is not here yet
└── Overloaded              more is asked than can be answered in time; refused at once
"""

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class OpportuneError(Exception):
    """Base of every error raised on purpose."""


class InvalidInput(OpportuneError):
    """A value given by the caller is wrong.

    Attributes:
        field: path of the value, as the caller wrote it, such as ``context.location.latitude``.
        expected: what would have been accepted.
    """

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: {expected}")
        self.field = field
        self.expected = expected


class UnknownReference(InvalidInput):
    """A well-formed id names nothing in the catalogue."""


class RuleFault(NamedTuple):
    """What is wrong at one place of a rule's text.

    Attributes:
        offset: of the first character that is wrong, from 0.
        length: how many characters are wrong; 0 where something is missing.
        line, column: the same place for people, both from 1.
        found: what stands there.
        expected: what would have been accepted.
        meant: what may have been meant, None if nothing is like it.
    """

    offset: int
    length: int
    line: int
    column: int
    found: str
    expected: str
    meant: str | None = None

    def __str__(self) -> str:
        meant = "" if self.meant is None else f"; did you mean {self.meant}?"
        return f"line {self.line}, column {self.column}: found {self.found}; expected {self.expected}{meant}"


class InvalidRule(OpportuneError):
    """A rule cannot be read, or makes no sense.

    Attributes:
        faults: everything that is wrong, in the order of the text.
    """

    def __init__(self, faults: Sequence[RuleFault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)


class InvalidChanges(OpportuneError):
    """Some changes of the catalogue are wrong, and none was made.

    Attributes:
        faults: the place of each wrong change in its batch, and what is wrong with it.
    """

    def __init__(self, faults: Sequence[tuple[int, InvalidInput]]) -> None:
        super().__init__("; ".join(f"[{place}].{error}" for place, error in faults))
        self.faults = tuple(faults)


class RepeatedChanges(InvalidChanges):
    """Two changes of a batch are of one thing, so that neither is known to be the later one."""


class StillReferred(OpportuneError):
    """Something that live offers refer to was to be withdrawn."""


class Stale(OpportuneError):
    """A change was made of another state than the present one."""


class InvalidTables(OpportuneError):
    """The input tables break the data contract.

    Attributes:
        problems: one sentence each, naming file, row, column, value and what was expected.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("the input tables break the data contract:\n" + "\n".join(f"  {p}" for p in problems))
        self.problems = tuple(problems)


class CorruptBundle(OpportuneError):
    """A published file is missing, truncated, altered or of another format version.

    Attributes:
        path: the file.
        problem: what is wrong with it, in words that may be told to anybody: no path, no text of another library.
    """

    def __init__(self, path: Path, problem: str, detail: str = "") -> None:
        super().__init__(f"{path}: {problem}" + (f": {detail}" if detail else ""))
        self.path = path
        self.problem = problem


class ReleaseClosed(OpportuneError):
    """A release was asked for something after it had been closed; a fault of this program."""


class OutdatedView(OpportuneError):
    """A view was to be published that had been overtaken meanwhile; nothing was changed."""


class EmptyStore(OpportuneError):
    """The store holds no published version, or not the one asked for."""


class RefusedByGate(OpportuneError):
    """A trained model is worse than the baseline it has to beat."""


class DeviceUnavailable(OpportuneError):
    """A device was asked for by name and is not there; nothing falls back to another silently."""


class UnsupportedSearch(OpportuneError):
    """An index was asked for something it cannot answer exactly."""


class EventStoreUnavailable(OpportuneError):
    """The event store cannot be reached."""


class CatalogueBehind(OpportuneError):
    """A request wants a change of the catalogue to be seen that is not here yet: it may be sent again."""


class Overloaded(OpportuneError):
    """More is asked than can be answered in time: this request is refused at once and may be sent again."""


def refused_by_system(error: OSError, store: Path | None) -> str:
    """Return a message that says what the operating system refused a command, and where.

    Args:
        error: as it was raised; errors of writing name no file.
        store: what the command was working on, if anything.
    """
    where = error.filename or store
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on {where}: free some, then give the same command again"
    if error.errno == errno.EMFILE:
        return f"{where}: too many files are open, the parts of tables among them; join parts, or raise ulimit -n"
    return f"{where}: {error.strerror or error}" if where else str(error.strerror or error)
