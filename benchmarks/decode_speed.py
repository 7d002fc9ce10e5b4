"""How long a stamp and an alert take to decode, against astropy and a plain fastavro.

    python benchmarks/decode_speed.py [--data DIR_OF_AVRO_ALERTS] [--repeat 5]

Without ``--data`` the stamps are simulated. Every decoded stamp is compared with astropy's, bit for bit;
the exit code is 1 if one differs, or if the fast path is less than five times as fast.
"""

from __future__ import annotations

import argparse
import gzip
import io
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from transientnet import open_triplets
from transientnet.files.compressed import gunzip, most_of_a_stamp
from transientnet.readers.plain import plain_image
from transientnet.readers.stamp import decode_stamp


def best(function: Callable[[], Any], repeat: int) -> float:
    """Shortest of `repeat` runs, in seconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def astropy_stamp(raw: bytes) -> Any:
    with fits.open(io.BytesIO(raw)) as opened:
        return opened[0].data


def simulated(n: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    stamps = []
    for _ in range(n):
        file = io.BytesIO()
        fits.PrimaryHDU(rng.normal(100, 5, (63, 63)).astype(np.float32)).writeto(file)
        stamps.append(gzip.compress(file.getvalue()))
    return stamps


def cutouts(files: list[Path]) -> list[bytes]:
    import fastavro

    names = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
    found = []
    for path in files:
        with path.open("rb") as file:
            for record in fastavro.reader(file):
                stamps: Any = [record.get(name) for name in names]  # type: ignore[union-attr]
                found += [s["stampData"] if isinstance(s, dict) else s for s in stamps if s is not None]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of Avro alerts with a cutoutScience field")
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")

    files = sorted(args.data.rglob("*.avro")) if args.data else []
    zipped = cutouts(files) if files else simulated(72)
    raw = [gunzip(data, most_of_a_stamp()) for data in zipped]
    n = len(raw)

    differ = 0
    for data, packed in zip(raw, zipped, strict=True):
        ours, theirs = decode_stamp(packed), astropy_stamp(data)
        differ += ours.dtype != theirs.dtype or ours.tobytes() != theirs.tobytes()
    print(f"{n} stamps, {differ} differ from astropy")

    per_stamp = {
        "astropy fits.open, unzipped": best(lambda: [astropy_stamp(data) for data in raw], args.repeat),
        "fast path, unzipped": best(lambda: [plain_image(data) for data in raw], args.repeat),
        "zlib gunzip alone": best(lambda: [gzip.decompress(data) for data in zipped], args.repeat),
        "gunzip alone": best(lambda: [gunzip(data, most_of_a_stamp()) for data in zipped], args.repeat),
        "zlib gunzip and fits.open": best(
            lambda: [astropy_stamp(gzip.decompress(data)) for data in zipped], args.repeat
        ),
        "decode_stamp": best(lambda: [decode_stamp(data) for data in zipped], args.repeat),
    }
    for name, seconds in per_stamp.items():
        print(f"{name:32} {1e6 * seconds / n:8.1f} us a stamp")
    gain = per_stamp["astropy fits.open, unzipped"] / per_stamp["fast path, unzipped"]
    whole = per_stamp["zlib gunzip and fits.open"] / per_stamp["decode_stamp"]
    print(f"fast path against fits.open: {gain:.1f} times as fast; gunzip included: {whole:.1f}")

    if files:
        _alerts(files, args.repeat)
    return 1 if differ or gain < 5 else 0


def _alerts(files: list[Path], repeat: int) -> None:
    import fastavro

    def plain() -> int:
        count = 0
        for path in files:
            with path.open("rb") as file:
                count += sum(1 for _ in fastavro.reader(file))
        return count

    paths = [str(path) for path in files]
    alerts = sum(1 for _ in open_triplets(paths))
    records, whole = best(plain, repeat), best(lambda: list(open_triplets(paths)), repeat)
    print(f"fastavro.reader, records only    {1e6 * records / alerts:8.1f} us an alert")
    print(f"open_triplets, stamps and all    {1e6 * whole / alerts:8.1f} us an alert")


if __name__ == "__main__":
    sys.exit(main())
