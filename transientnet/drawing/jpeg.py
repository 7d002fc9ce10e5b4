"""Grey pictures as baseline JPEG (ITU-T T.81): a page of ten thousand noisy stamps stays small."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

__all__ = ["jpeg_head", "jpeg_pixels"]

_SIDE = 8
#: Rows, then columns, of the 64 coefficients in zigzag order.
_ZIGZAG = np.array(sorted(np.ndindex(8, 8), key=lambda p: (sum(p), p[sum(p) % 2 == 0]))).T
#: Steps of the coefficients in grey levels. Pixel noise fills every frequency; a source has the low ones.
_STEPS = 24 + 6 * _ZIGZAG.sum(axis=0)
_BASIS = np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(8) + 1) / 16) / 2
_BASIS[0] /= np.sqrt(2)

# The Huffman codes of T.81, tables K.3 and K.5: codes of each length from 1 to 16, and their symbols.
_DC = ("00010501010101010100000000000000", "000102030405060708090a0b")
_AC = (
    "0002010303020403050504040000017d",
    "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435"
    "363738393a434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798"
    "999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4"
    "f5f6f7f8f9fa",
)
_END, _SIXTEEN_ZEROS = 0x00, 0xF0

Codes = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]


def _codes(table: tuple[str, str]) -> Codes:
    """Code and its length, by symbol."""
    counts, symbols = map(bytes.fromhex, table)
    code, at = 0, 0
    values, lengths = np.zeros(256, np.uint64), np.zeros(256, np.int64)
    for length, count in enumerate(counts, 1):
        for symbol in symbols[at : at + count]:
            values[symbol], lengths[symbol] = code, length
            code += 1
        at += count
        code <<= 1
    return values, lengths


_DC_CODES, _AC_CODES = _codes(_DC), _codes(_AC)


def jpeg_head(height: int, width: int, coarseness: float = 1.0) -> bytes:
    """What stands before the pixels of a grey JPEG file; a multiple of three bytes, so that base64 can go on.

    Parameters
    ----------
    height, width : int
        Pixels.
    coarseness : float
        Factor of the quantisation steps.
    """

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    head = b"".join(
        (
            segment(0xDB, b"\0" + _steps(coarseness).astype(np.uint8).tobytes()),
            segment(0xC0, struct.pack(">BHHB3B", 8, height, width, 1, 1, 0x11, 0)),
            segment(0xC4, b"\x00" + bytes.fromhex("".join(_DC))),
            segment(0xC4, b"\x10" + bytes.fromhex("".join(_AC))),
            segment(0xDA, bytes((1, 1, 0, 0, 63, 0))),
        )
    )
    filler = segment(0xFE, b" " * (-(len(head) + 6) % 3))
    return b"\xff\xd8" + filler + head


def jpeg_pixels(image: npt.NDArray[np.uint8], coarseness: float = 1.0) -> bytes:
    """The pixels of a grey JPEG file, behind `jpeg_head` of the same shape and coarseness.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W)
        Both sides multiples of 8; row 0 is at the top.
    coarseness : float
    """
    height, width = image.shape
    rows = image.reshape(height // _SIDE, _SIDE, width // _SIDE, _SIDE).transpose(0, 2, 1, 3)
    blocks = rows.reshape(-1, _SIDE, _SIDE).astype(np.float32) - 128
    waves = (_BASIS @ blocks @ _BASIS.T)[:, _ZIGZAG[0], _ZIGZAG[1]]
    stream = _entropy_coded(np.rint(waves / _steps(coarseness)).astype(np.int64))
    return stream.replace(b"\xff", b"\xff\x00") + b"\xff\xd9"


def _steps(coarseness: float) -> npt.NDArray[np.float64]:
    steps: npt.NDArray[np.float64] = np.clip(np.rint(_STEPS * coarseness), 1, 255)
    return steps


def _entropy_coded(blocks: npt.NDArray[np.int64]) -> bytes:
    """Quantised coefficients (N, 64) in zigzag order as Huffman codes."""
    n = len(blocks)
    # A column for each coefficient and one for the end of the block; length 0 writes nothing.
    codes, lengths = np.zeros((n, 65), np.uint64), np.zeros((n, 65), np.int64)
    codes[:, 0], lengths[:, 0] = _with_value(np.diff(blocks[:, 0], prepend=0), _DC_CODES)
    block, place = np.nonzero(blocks[:, 1:])
    place += 1
    first = np.diff(block, prepend=-1) != 0
    zeros = place - 1 - np.where(first, 0, np.concatenate([[0], place[:-1]]))
    code, length = _with_value(blocks[block, place], _AC_CODES, zeros % 16 << 4)
    for k in range(1, 4):
        # At most three times sixteen zeros go before a coefficient: 33 bits beside its own 26.
        long = zeros >= 16 * k
        code[long] |= _AC_CODES[0][_SIXTEEN_ZEROS] << length[long].astype(np.uint64)
        length[long] += _AC_CODES[1][_SIXTEEN_ZEROS]
    codes[block, place], lengths[block, place] = code, length
    ends = blocks[:, 63] == 0
    codes[ends, 64], lengths[ends, 64] = _AC_CODES[0][_END], _AC_CODES[1][_END]
    return _packed(codes[lengths > 0], lengths[lengths > 0])


def _with_value(values: npt.NDArray[np.int64], codes: Codes, zeros: npt.NDArray[np.int64] | int = 0) -> Codes:
    """Code of each number's size (and of the zeros before it), then the number in so many bits."""
    size = np.frexp(np.abs(values).astype(np.float64))[1].astype(np.int64)
    bits = np.where(values < 0, values + (1 << size) - 1, values).astype(np.uint64)
    symbol = zeros | size
    return codes[0][symbol] << size.astype(np.uint64) | bits, codes[1][symbol] + size


def _packed(codes: npt.NDArray[np.uint64], lengths: npt.NDArray[np.int64]) -> bytes:
    """Codes one behind the other, the last byte filled with ones."""
    ends = np.cumsum(lengths)
    shift = np.repeat(ends, lengths) - 1 - np.arange(ends[-1])
    bits = (np.repeat(codes, lengths) >> shift.astype(np.uint64)) & np.uint64(1)
    return np.packbits(np.concatenate([bits.astype(np.uint8), np.ones(-len(bits) % 8, np.uint8)])).tobytes()
