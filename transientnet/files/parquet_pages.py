"""What the pages of a Parquet file unpack to, by their own headers: before anything unpacks them.

A dictionary or a run of equal values makes a few bytes stand for any number of large values, and the sizes
in a file's footer are those of the packed form. The headers of the pages (Thrift's compact protocol, as the
Parquet format defines them) hold what pyarrow will ask memory for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any

from ..errors import ReadError
from ..settings import memory_limit
from .compressed import Growth

__all__ = ["batches"]

#: Bytes of an unpacked batch, if its rows are no larger than that.
_BATCH_BYTES = 32 * 2**20
#: Beside each value: its place in the lists that hold it, and where it begins.
_BESIDE = 12
#: A dictionary that need not be looked into, bytes: writers' own limit, as a rule.
_SMALL = 2**20
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_DICTIONARY = 2
#: Behind the end of any file, and still a place that can be sought.
_FAR = 2**40


def batches(
    file: Any, stream: IO[bytes], group: int, columns: Sequence[str], growth: Growth, most_rows: int
) -> Iterator[Any]:
    """Rows of one row group, in batches that stay within the bound of memory.

    Parameters
    ----------
    file : pyarrow.parquet.ParquetFile
    stream : file
        Its bytes, where no one else reads.
    group : int
        Number of the row group.
    columns : sequence of str
        Dotted names of the columns to read.
    growth : Growth
        What the file may still unpack to.
    most_rows : int
        Rows of a batch, where they are small.

    Yields
    ------
    pyarrow.RecordBatch
        Columns that the file keeps as categories come as their values.

    Raises
    ------
    ReadError
        Pages or values of one row are beyond the bound, the file unpacks to more than it may, or a page has a
        damaged header.
    """
    import pyarrow

    stored = file.metadata.row_group(group)
    if not stored.num_rows:
        return  # as clusters write an empty partition: it has no pages
    held, row = 0, 1
    for index in range(stored.num_columns):
        chunk = stored.column(index)
        if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns):
            pages, value = _cost(stream, chunk, stored.num_rows, growth)
            held, row = held + pages, row + value
    # As measured: pyarrow's decoders copy pages, and its builders and Python the values of a row.
    if 2.5 * held + 5 * row > memory_limit():
        raise ReadError(
            f"its pages of {held / 2**20:,.0f} MiB and rows of up to {row / 2**20:,.0f} MiB take more than "
            f"the limit of {memory_limit() // 2**20} MiB to unpack; if it is sound, write it with smaller "
            "pages, or raise TRANSIENTNET_MEMORY"
        )
    rows = max(1, min(most_rows, _BATCH_BYTES // row))
    for batch in file.iter_batches(rows, row_groups=[group], columns=list(columns), use_threads=False):
        values = [
            column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column
            for column in batch.columns
        ]
        batch = pyarrow.RecordBatch.from_arrays(values, batch.schema.names)
        growth.take(batch.nbytes)
        yield batch


def _cost(stream: IO[bytes], chunk: Any, rows: int, growth: Growth) -> tuple[int, int]:
    """Bytes that the pages of a column chunk hold while it is read, and those of the values of one row.

    The row of a list is a mean: how many of the values it has is known when they are unpacked.
    """
    width = _WIDTHS.get(chunk.physical_type, 0)
    dictionary = value = largest = values = unpacked = 0
    mean = float(width)
    for kind, size, count, place in _pages(stream, chunk):
        if kind == _DICTIONARY:
            dictionary = max(dictionary, size)
            if not width and dictionary <= memory_limit() // 2:
                value = max(value, _largest(stream, chunk, place, size))
            continue
        largest, values = max(largest, size), values + count
        mean = max(mean, size / max(count, 1))
        unpacked += max(size, count * width) + count * _BESIDE
    growth.check(unpacked)
    return dictionary + largest, int((max(mean, value) + _BESIDE) * max(1.0, values / max(rows, 1)))


def _largest(stream: IO[bytes], chunk: Any, place: tuple[int, int], size: int) -> int:
    """Bytes of the largest value of a dictionary of byte arrays; of a small or damaged one, all of it."""
    import pyarrow

    if size <= _SMALL or chunk.physical_type != "BYTE_ARRAY":
        return size
    stream.seek(place[0])
    page: Any = stream.read(place[1])
    try:
        if chunk.compression != "UNCOMPRESSED":
            page = pyarrow.Codec(chunk.compression.lower()).decompress(page, size)
        page, at, largest = memoryview(page), 0, 0
        while at + 4 <= len(page):
            length = int.from_bytes(page[at : at + 4], "little")
            largest, at = max(largest, length), at + 4 + length
    except (pyarrow.ArrowException, OSError, ValueError, TypeError):
        return size
    return min(largest, size)


def _pages(stream: IO[bytes], chunk: Any) -> Iterator[tuple[int, int, int, tuple[int, int]]]:
    """Type, unpacked size and number of values of each page; where it lies, and its packed size."""
    first = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < (chunk.dictionary_page_offset or 0) < first:
        first = chunk.dictionary_page_offset
    at, end = first, first + chunk.total_compressed_size
    while at < end:
        stream.seek(at)
        header = _struct(stream)
        kind, size, packed = (header.get(field, 0) for field in (1, 2, 3))
        inner = header.get(8, header.get(5, {}))
        count = inner.get(1, 0) if isinstance(inner, dict) else -1
        at = stream.tell()
        numbers = (kind, size, packed, count)
        if not all(isinstance(number, int) for number in numbers) or min(numbers) < 0 or packed > end - at:
            raise ReadError("a page has a damaged header")
        yield kind, size, count, (at, packed)
        at += packed


def _struct(stream: IO[bytes], depth: int = 0) -> dict[int, Any]:
    """Numbers and structures of a Thrift structure, by their field."""
    found: dict[int, Any] = {}
    field = 0
    while head := _byte(stream):
        field = field + (head >> 4) if head >> 4 else _zigzag(stream)
        kind = head & 15
        if kind in (1, 2):
            found[field] = kind == 1
        elif kind in (4, 5, 6):
            found[field] = _zigzag(stream)
        elif kind in (3, 7, 8):
            stream.seek({3: 1, 7: 8}.get(kind) or min(_varint(stream), _FAR), 1)
        elif kind == 12 and depth < 4:
            found[field] = _struct(stream, depth + 1)
        else:
            raise ReadError("a page has a damaged header")
    return found


def _byte(stream: IO[bytes]) -> int:
    byte = stream.read(1)
    if not byte:
        raise ReadError("a page begins behind the end of the file")
    return byte[0]


def _varint(stream: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(stream)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise ReadError("a page has a damaged header")


def _zigzag(stream: IO[bytes]) -> int:
    value = _varint(stream)
    return (value >> 1) ^ -(value & 1)
