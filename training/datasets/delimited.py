"""Reads delimited text strictly: a file is held against the grammar before Polars makes a table of it.

Readers of CSV go on where a file is in doubt, and each goes on in its own way: a quote that is escaped by a backslash,
or stands for inches, may swallow rows without a word. So every byte is looked at once. The grammar is RFC 4180's: a
field that holds a separator, a quote or a line break is quoted, a quote inside it is doubled, and every record has as
many fields as the header. Whatever is not so is a fault, with its row.
"""

import csv
import gzip
import io
import re
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, getincrementaldecoder
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PIECE_BYTES = 1 << 24
LONGEST_ROW = 1 << 26
"""Bytes that a row may have. A row is held whole, and a few kB of compressed text may be a row of any length."""
MOST_COLUMNS = 1_000
"""Columns that a table may have: attributes are looked at side by side."""
SHOWN_FAULTS = 20

_QUOTE, _FEED, _RETURN, _NUL = b'"'[0], b"\n"[0], b"\r"[0], 0
_GZIP = b"\x1f\x8b"
_BEGIN = 8
"""Bytes that tell what a file is."""
_OTHER_FORMATS = {
    b"PK\x03\x04": "is a zip archive, as workbooks of Excel are; unpack it, or save the sheet as CSV",
    b"PAR1": "is Parquet; give it a name that ends in .parquet",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; unpack it, or compress it by gzip",
    b"BZh": "is compressed by bzip2; unpack it, or compress it by gzip",
    b"{": "is JSON; write it as CSV or Parquet",
    b"[{": "is JSON; write it as CSV or Parquet",
    b"<": "is HTML or XML; write it as CSV or Parquet",
}
_INSTRUCTION = re.compile(rb"sep=.\r?")
_STRAY = 'a quote stands in a field that is not quoted; expected the whole field in quotes, and in it "" for a quote'
_ESCAPED = 'a quoted field goes on after its closing quote; expected "" for a quote inside it, and no backslash'
_RETURN_ALONE = "a line ends in CR alone; save the file with line ends LF or CRLF"
_BLANK = "the line is empty; remove it"


class Fault(NamedTuple):
    """Why a file cannot be read as it is.

    Attributes:
        row: in which data row, counted from 1; 0 is the header, None the file as a whole.
        line: in which line of the file, counted from 1; a quoted field may hold several.
        problem: what is wrong and what to do, as a part of a sentence.
    """

    row: int | None
    line: int | None
    problem: str

    def said(self, file: str) -> str:
        """Return the fault of a file as a whole sentence."""
        if self.row is None:
            return f"{file}: {self.problem}"
        where = "header" if self.row == 0 else f"row {self.row:,}"
        return f"{file}, {where} (line {self.line:,}): {self.problem}"


class Delimited(NamedTuple):
    """A file of delimited text that keeps to the grammar, or what is wrong with it.

    Attributes:
        path: where its UTF-8 text lies.
        text: keeps a decoded copy open, which has no name and goes when it is closed; None where the file is read as
            it lies.
        header: the names of the columns.
        rows: how many records follow the header.
        blank: how many empty lines come after them.
        faults: the first so many.
        more: how many further faults there are.
    """

    path: Path
    text: IO[bytes] | None
    header: tuple[str, ...]
    rows: int
    blank: int
    faults: tuple[Fault, ...]
    more: int


def read_delimited(path: Path, separator: str) -> Delimited:
    """Check all of a file against the grammar.

    A file that is compressed or UTF-16 is decoded into a temporary one first.

    Args:
        path: of the file.
        separator: one ASCII character.

    Raises:
        OSError: it cannot be read.
    """
    text = _decoded(path)
    if isinstance(text, Fault):
        return Delimited(path, None, (), 0, 0, (text,), 0)
    readable = path if text is None else Path(f"/proc/self/fd/{text.fileno()}")
    scan = _Scan(separator)
    with readable.open("rb") as file:
        for piece, last in _pieces(file):
            scan.take(piece, last=last)
    rows = max(scan.records - 1, 0) - scan.blank
    return Delimited(readable, text, scan.header, rows, scan.blank, tuple(scan.faults), scan.more)


def _decoded(path: Path) -> IO[bytes] | Fault | None:
    """Return the file's text as UTF-8 in a temporary file, None if the file is UTF-8 itself, or a fault."""
    with path.open("rb") as file:
        begin = file.read(_BEGIN)
        compressed = begin.startswith(_GZIP)
        file.seek(0)
        if not compressed and not begin.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
            return _other_format(begin)
        source: Any = gzip.GzipFile(fileobj=file) if compressed else file
        try:
            return _copied(source)
        except (EOFError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile) and error.errno is not None:
                raise
            return Fault(None, None, f"the compressed file is damaged or cut off ({error}); copy it again")
        except UnicodeDecodeError as error:
            return Fault(
                None, None, f"the file begins as UTF-16 but goes on otherwise ({error.reason}); save it as UTF-8"
            )


def _copied(source: Any) -> IO[bytes] | Fault:
    """Copy a text as UTF-8 into a temporary file; return that file, or the fault that prevents it."""
    piece = source.read(_BEGIN)
    if piece.startswith(_GZIP):
        return Fault(None, None, "is compressed twice; unpack it once")
    if other := _other_format(piece):
        return other
    wide = piece.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    decode = getincrementaldecoder("utf-16" if wide else "utf-8")()
    target = TemporaryFile()  # noqa: SIM115 - it lives as long as the table is read
    while piece:
        _write(target, decode.decode(piece).encode() if wide else piece)
        piece = source.read(PIECE_BYTES)
    _write(target, decode.decode(b"", final=True).encode() if wide else b"")
    return target


def _write(target: IO[bytes], text: bytes) -> None:
    """Write to a temporary file; OSError names the folder, which may be full."""
    try:
        target.write(text)
        target.flush()
    except OSError as error:
        error.filename = gettempdir()
        raise


def _other_format(begin: bytes) -> Fault | None:
    """Return a fault that names the format of a file that is not delimited text; None for any other file."""
    begin = begin.removeprefix(BOM_UTF8).lstrip()
    return next((Fault(None, None, what) for mark, what in _OTHER_FORMATS.items() if begin.startswith(mark)), None)


def _pieces(file: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield the text in pieces of whole lines, each with whether it is the last, which may lack the line's end."""
    rest = file.read(len(BOM_UTF8)).removeprefix(BOM_UTF8)
    while True:
        read = file.read(PIECE_BYTES)
        if not read:
            yield rest, True
            return
        end = read.rfind(b"\n") + 1
        if end:
            yield rest + read[:end], False
            rest = read[end:]
        elif len(rest) > LONGEST_ROW:
            yield rest, False  # the scan says what is wrong with it
            rest = b""
        else:
            rest += read


class _Scan:
    """Checks a file piece by piece.

    Attributes:
        header: the names of the columns, once the first piece was seen.
        records: so far, the header included.
        faults: the first so many.
        more: further ones.
        blank: how many empty lines came last; at the end of a file they are no rows.
    """

    def __init__(self, separator: str) -> None:
        self.header: tuple[str, ...] = ()
        self.records = 0
        self.faults: list[Fault] = []
        self.more = 0
        self.blank = 0
        self._separator = separator
        self._lines = 0
        self._quoted = False  # whether the piece begins inside of a quoted field
        self._separators = 0  # of the record that the piece goes on with
        self._blank: tuple[int, int] | None = None  # row and line of the first of the empty lines that came last
        self._lost = False

    def take(self, piece: bytes, *, last: bool) -> None:
        """Check the next piece of the file."""
        if self._lost or (not piece and not last):
            return
        if last and piece and not piece.endswith(b"\n"):
            piece += b"\n"
        elif not last and not piece.endswith(b"\n"):
            self._fault(
                self.records,
                self._lines + 1,
                f"the row is longer than {LONGEST_ROW >> 20} MiB; is the line's end missing, or another one than LF?",
            )
            self._lost = True
            return
        self._check_text(piece)
        if not self._lost:
            self._check_records(np.frombuffer(piece, np.uint8), piece)
        if last and not self._lost:
            if not self.records:
                self._fault(0, 1, "the file is empty; expected a header line with the names of the columns")
            elif self._quoted:
                self._fault(
                    self.records, self._lines, 'a quoted field begins in this row and never ends; expected a closing "'
                )

    def _check_text(self, piece: bytes) -> None:
        """Find bytes that are not text; nothing after them can be checked."""
        try:
            piece.decode()
            if _NUL not in piece:
                return
            place, what = piece.index(0), "holds a NUL byte, as UTF-16 without its mark does; save the file as UTF-8"
        except UnicodeDecodeError as error:
            place = error.start
            what = (
                f"is not UTF-8 (byte 0x{piece[place]:02X}); save the file as UTF-8, for example with "
                "iconv -f WINDOWS-1252 -t UTF-8"
            )
        line = piece.count(b"\n", 0, place)
        self._fault(self.records + line if not self._quoted else self.records, self._lines + line + 1, what)
        self._lost = True

    def _check_records(self, bytes_B: NDArray[np.uint8], piece: bytes) -> None:
        quotes = np.flatnonzero(bytes_B == _QUOTE)
        feeds = np.flatnonzero(bytes_B == _FEED)
        separators = np.flatnonzero(bytes_B == ord(self._separator))
        ends, between = feeds, separators
        if len(quotes) or self._quoted:
            ends = feeds[(quotes.searchsorted(feeds) + self._quoted) % 2 == 0]
            between = separators[(quotes.searchsorted(separators) + self._quoted) % 2 == 0]
        if not self.records and len(ends):
            self._read_header(piece[: ends[0]])
            if self._lost:
                return
        wrong = self._wrong_quotes(bytes_B, quotes)
        returns = np.flatnonzero(bytes_B == _RETURN)
        if len(returns):
            alone = returns[bytes_B[np.minimum(returns + 1, len(bytes_B) - 1)] != _FEED]
            if len(quotes) or self._quoted:
                alone = alone[(quotes.searchsorted(alone) + self._quoted) % 2 == 0]
            wrong += [(int(place), _RETURN_ALONE) for place in alone[:1]]
        for place, problem in sorted(wrong)[: SHOWN_FAULTS + 1]:
            self._fault(self.records + int(ends.searchsorted(place)), self._line(feeds, place), problem)
        if wrong:
            # What follows a wrong quote may be inside of a field or outside: nobody can say.
            self._lost = True
            return
        self._count_fields(bytes_B, feeds, ends, between)
        self.records += len(ends)
        self._lines += len(feeds)
        self._quoted = bool((len(quotes) + self._quoted) % 2)
        self._separators = (
            len(between) - int(between.searchsorted(ends[-1])) if len(ends) else self._separators + len(between)
        )

    def _wrong_quotes(self, bytes_B: NDArray[np.uint8], quotes: NDArray[np.intp]) -> list[tuple[int, str]]:
        opening, closing = quotes[self._quoted :: 2], quotes[1 - self._quoted :: 2]
        separator = ord(self._separator)
        before = bytes_B[np.maximum(opening - 1, 0)]
        begins = (opening == 0) | (before == separator) | (before == _FEED) | (before == _QUOTE)
        after = bytes_B[np.minimum(closing + 1, len(bytes_B) - 1)]
        ends = (after == separator) | (after == _FEED) | (after == _RETURN) | (after == _QUOTE)
        return [
            *((int(place), _STRAY) for place in opening[~begins][: SHOWN_FAULTS + 1]),
            *((int(place), _ESCAPED) for place in closing[~ends][: SHOWN_FAULTS + 1]),
        ]

    def _count_fields(
        self,
        bytes_B: NDArray[np.uint8],
        feeds: NDArray[np.intp],
        ends: NDArray[np.intp],
        between: NDArray[np.intp],
    ) -> None:
        """Check every record's number of fields against the header's."""
        if not len(ends):
            return
        counts = np.diff(between.searchsorted(ends), prepend=0) + 1
        counts[0] += self._separators
        begins = np.concatenate([[0], ends[:-1] + 1])
        blank = ends - begins - (bytes_B[np.maximum(ends - 1, 0)] == _RETURN) <= 0
        blank[0] &= not (self._quoted or self._separators or not self.records)
        filled = np.flatnonzero(~blank)
        if len(filled):
            if self._blank is not None:
                self._fault(*self._blank, _BLANK)
            self._blank, self.blank = None, 0
        end = int(filled[-1]) + 1 if len(filled) else 0
        wrong = np.flatnonzero((counts[:end] != len(self.header)) | blank[:end])
        room = SHOWN_FAULTS - len(self.faults)
        self.more += max(len(wrong) - max(room, 0), 0)
        for record in wrong[: max(room, 0)].tolist():
            self._fault(
                self.records + record,
                self._line(feeds, int(begins[record])),
                _BLANK if blank[record] else self._miscounted(int(counts[record])),
            )
        if end < len(ends) and self._blank is None:
            self._blank = self.records + end, self._line(feeds, int(begins[end]))
        self.blank += len(ends) - end

    def _miscounted(self, count: int) -> str:
        hint = "; a field that holds a separator must be in quotes" if count > len(self.header) else ""
        return f"expected {len(self.header)} fields, as in the header, got {count}{hint}"

    def _read_header(self, line: bytes) -> None:
        wrong = ""
        if not line.strip(b"\r"):
            wrong = "the first line is empty; expected the names of the columns"
        elif line.startswith(BOM_UTF8):
            wrong = "the mark of UTF-8 (BOM) is there twice; remove one"
        elif _INSTRUCTION.fullmatch(line):
            wrong = f"{line.decode().strip()!r} is meant for Excel alone; remove the line"
        elif line.count(self._separator.encode()) >= MOST_COLUMNS:
            columns = line.count(self._separator.encode()) + 1
            wrong = f"the header names about {columns:,} columns; expected at most {MOST_COLUMNS:,}"
        if wrong:
            self._fault(0, 1, wrong)
            self._lost = True
            return
        try:
            lines = csv.reader(io.StringIO(line.decode().rstrip("\r"), newline=""), delimiter=self._separator)
            self.header = tuple(next(lines, []))
        except csv.Error as error:
            self.header = ()
            if "limit" in str(error):  # other faults of quotes are found by themselves
                self._fault(0, 1, f"a column's name is too long ({error}); expected the names of the columns")
                self._lost = True

    def _line(self, feeds: NDArray[np.intp], place: int) -> int:
        return self._lines + int(feeds.searchsorted(place)) + 1

    def _fault(self, row: int, line: int, problem: str) -> None:
        if len(self.faults) < SHOWN_FAULTS:
            self.faults.append(Fault(row, line, problem))
        else:
            self.more += 1
