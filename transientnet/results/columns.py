"""The columns of the score table, and text that stays on one row of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from ..errors import MissingDependencyError

__all__ = ["POSITIONS", "Columns", "as_arrow", "one_line", "plural"]

Columns = Mapping[str, npt.NDArray[Any]]
"""A score table: name of each column, in order, to its N values."""

POSITIONS = ("ra", "dec", "x", "y")
"""Columns of where the candidate is, behind the model's: degrees (ICRS), and pixels from 0."""

#: What some format or terminal takes for the end of a row, or cannot hold: control characters, Unicode's
#: line and paragraph ends, halves of surrogate pairs (bytes of file names that are not UTF-8), and U+FFFE/F.
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def plural(n: int, noun: str) -> str:
    """``1 candidate``, ``2 candidates``, ``1,000 candidates``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def one_line(texts: Sequence[str]) -> list[str]:
    r"""The texts without a character that would break a row: it is written as an escape, ``\r``."""
    if _UNWRITABLE.search("".join(texts)) is None:
        return list(texts)
    return [_UNWRITABLE.sub(_escaped, text) for text in texts]


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    # A byte of a file name that is not UTF-8, as Python hands it on.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else ascii(match[0])[1:-1]


def as_arrow(columns: Columns) -> Any:
    """The score table as a `pyarrow.RecordBatch`.

    Raises
    ------
    MissingDependencyError
        Without the ``parquet`` extra.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingDependencyError.for_extra("parquet", "to_arrow()") from error
    return pa.RecordBatch.from_pydict(
        {
            name: pa.array(values.tolist(), pa.string()) if values.dtype.kind == "U" else pa.array(values)
            for name, values in columns.items()
        }
    )
