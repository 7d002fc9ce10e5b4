"""The codecs of Avro's blocks, within the bound of memory."""

from __future__ import annotations

import bz2
import lzma
import zlib

from ..errors import MissingDependencyError, ReadError

__all__ = ["decompress"]


def decompress(data: bytes, codec: str, limit: int) -> bytes:
    """One block, of at most `limit` bytes."""
    try:
        if codec == "null":
            return data
        if codec == "deflate":
            block = zlib.decompressobj(-15).decompress(data, limit + 1)
        elif codec == "bzip2":
            block = bz2.BZ2Decompressor().decompress(data, limit + 1)
        elif codec == "xz":
            block = lzma.LZMADecompressor(memlimit=limit).decompress(data, limit + 1)
        elif codec in ("snappy", "zstandard"):
            block = _by_arrow(data, codec, limit)
        else:
            raise ReadError(f"unknown compression {codec!r}")
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"damaged {codec} block: {error}") from error
    if len(block) > limit:
        raise ReadError(f"a block decompresses to more than the limit of {limit} bytes")
    return block


def _by_arrow(data: bytes, codec: str, limit: int) -> bytes:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError.for_extra("parquet", f"Avro compressed with {codec}") from error
    if codec == "zstandard":
        stream = pyarrow.CompressedInputStream(pyarrow.BufferReader(data), "zstd")
        return bytes(stream.read(limit + 1))
    # Snappy data begin with their size; four bytes of checksum follow it in Avro.
    size = 0
    for i, byte in enumerate(data[:5]):
        size |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            break
    if size > limit or size > 64 * len(data):
        raise ReadError(f"a snappy block claims {size} bytes, the limit is {limit}")
    return bytes(pyarrow.Codec("snappy").decompress(data[:-4], size, asbytes=True))
