"""Delimited text is read as a slow reader of RFC 4180 reads it, or refused where that one finds it in doubt."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.datasets import delimited
from training.datasets.delimited import read_delimited

ENDS = ("\n", "\r\n")
PARTS = ["a", "é", ",", ";", *ENDS, '"', '""', '"x"', '"y\nz"', '"y,z"', '\\"', "\r", " "]


def slowly(text: str, separator: str) -> list[list[str]] | None:  # noqa: C901 - one state after the other
    """The records of a text, character by character; None where it breaks the grammar."""
    records: list[list[str]] = []
    record: list[str] = []
    field, state, written = "", "start", False
    text += "" if text.endswith("\n") else "\n"
    for place, one in enumerate(text):
        ends = one == "\n" or text[place : place + 2] == "\r\n"
        if state == "quoted":
            field, state = (field, "quote") if one == '"' else (field + one, state)
        elif one == "\r" and not ends:
            return None
        elif one == "\r":
            continue
        elif ends:
            records.append([*record, field] if record or field or written else [])
            record, field, state, written = [], "", "start", False
        elif one == separator:
            record, field, state = [*record, field], "", "start"
        elif one == '"' and state in ("start", "quote"):
            field, state, written = field + ('"' if state == "quote" else ""), "quoted", True
        elif one == '"' or state == "quote":
            return None
        else:
            field, state = field + one, "plain"
    if state == "quoted":
        return None
    while records and not records[-1]:
        records.pop()
    return records if all(len(one) == len(records[0]) for one in records) else None


@given(st.lists(st.sampled_from(PARTS), max_size=16), st.sampled_from([1, 2, 3, 7, 1 << 20]), st.sampled_from(",;"))
def test_a_text_is_read_as_it_is_written_or_refused(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], piece: int, separator: str
) -> None:
    text = f"h{separator}i\n" + "".join(parts)
    path = tmp_path_factory.getbasetemp() / "delimited.csv"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(delimited, "PIECE_BYTES", piece)
        found = read_delimited(path, separator)
    expected = slowly(text, separator)
    if expected is None:
        assert found.faults
        return
    assert not found.faults
    assert (list(found.header), found.rows) == (expected[0], len(expected) - 1)
    rows = found.rows if found.blank else None
    frame = pl.read_csv(path, separator=separator, infer_schema=False, n_rows=rows)
    assert [[cell or "" for cell in row] for row in frame.iter_rows()] == expected[1:]
