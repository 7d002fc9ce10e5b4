"""Mutate real and simulated files and read them: nothing but triplets, flagged rows and our own errors.

    python benchmarks/fuzz_readers.py --mutations 100000 [--data DIR …] [--seed 0]

Seeds are small files that this script simulates in every format, and the files under ``--data``. Each
mutation is read in a worker process that is stopped when one file takes longer than ``--seconds``. A crash, a
hang, memory beyond the limit (the 512 MB of a file, and what libraries take), or any exception that is not a
`TransientnetError` is a finding: the file is kept under ``--keep`` and the exit code is 1.
"""

from __future__ import annotations

import argparse
import base64
import collections
import faulthandler
import gzip
import io
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zlib
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

KEYWORDS = (
    b"NAXIS1  =", b"NAXIS2  =", b"NAXIS   =", b"BITPIX  =", b"BSCALE  =", b"BZERO   =", b"BLANK   =",
    b"PCOUNT  =", b"GCOUNT  =", b"TFIELDS =", b"THEAP   =", b"ZNAXIS1 =", b"ZTILE1  =", b"CDELT1  =",
    b"CD1_1   =", b"EXTNAME =", b"SIMPLE  =", b"FWHM    =", b"TFORM1  =", b"TDIM1   =", b"ZVAL1   =",
    b"ZCMPTYPE=", b"ZBITPIX =", b"TZERO1  =", b"TSCAL1  =", b"TNULL1  =",
)  # fmt: skip
VALUES = (
    b"0", b"-1", b"1", b"2", b"3", b"7", b"-32", b"-64", b"64", b"99999", b"2147483647",
    b"9223372036854775807", b"1E400", b"NaN", b"T", b"'x'", b"",
)  # fmt: skip
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
#: Counts, widths and lengths that a file may claim.
COUNTS = (0, 1, -1, 2, 63, 64, 1000, 65536, 2**31 - 1, 2**31, 2**40, 2**60, 2**63 - 1, -(2**63))


def simulated() -> dict[str, bytes]:
    """One small file of each format, made with the libraries that surveys use; the same bytes every time."""
    import fastavro
    from astropy.io import fits

    rng = np.random.default_rng(1)
    stamps = rng.normal(100, 5, (3, 21, 23)).astype(np.float32)
    names = ("SCI", "REF", "DIFF")
    seeds: dict[str, bytes] = {}

    def keep(name: str, *hdus: object) -> bytes:
        file = io.BytesIO()
        fits.HDUList(list(hdus)).writeto(file)
        seeds[name] = _timeless(file.getvalue())
        return seeds[name]

    header = fits.Header({"CDELT1": -1e-4, "CDELT2": 1e-4, "FWHM": 3.0, "CANDID": 7})
    plain = [keep(f"plain{i}.fits", fits.PrimaryHDU(stamp, header)) for i, stamp in enumerate(stamps)]
    keep(
        "ext.fits",
        fits.PrimaryHDU(),
        *(fits.ImageHDU(s, header, n) for s, n in zip(stamps, names, strict=True)),
    )
    keep("cube.fits", fits.PrimaryHDU(stamps))
    for kind in ("GZIP_1", "RICE_1", "HCOMPRESS_1", "PLIO_1"):
        pixels = np.abs(stamps[0]).astype(np.int16)
        keep(f"{kind}.fits.fz", fits.PrimaryHDU(), fits.CompImageHDU(pixels, compression_type=kind))
    scaled = fits.ImageHDU(stamps[0].astype(np.int16), name="SCI")
    scaled.header["BSCALE"], scaled.header["BZERO"], scaled.header["BLANK"] = 2.0, 5.0, 3
    mask = fits.ImageHDU((stamps[0] > 105).astype(np.uint8), name="MASK")
    keep("masked.fits", fits.PrimaryHDU(), scaled, mask)
    columns = [fits.Column(n, "483E", dim="(23,21)", array=stamps[i : i + 1]) for i, n in enumerate(names)]
    keep("table.fits", fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns))
    seeds["zipped.fits.gz"] = gzip.compress(plain[0], mtime=0)
    seeds["bomb.fits.gz"] = gzip.compress(plain[0] + bytes(2**21), 9, mtime=0)

    nested = {"type": "record", "name": "cutout", "fields": [{"name": "stampData", "type": "bytes"}]}
    schema = {
        "type": "record",
        "name": "ztf.alert",
        "fields": [
            {"name": "candid", "type": "long"},
            {"name": "history", "type": {"type": "array", "items": ["null", "double"]}},
            {"name": "cutoutScience", "type": ["null", nested]},
            {"name": "cutoutTemplate", "type": ["null", "bytes"]},
            {"name": "cutoutDifference", "type": ["null", "bytes"]},
        ],
    }
    record = {
        "candid": 1234567890123,
        "history": [1.0, None],
        "cutoutScience": {"stampData": gzip.compress(plain[0], mtime=0)},
        "cutoutTemplate": plain[1],
        "cutoutDifference": None,
    }
    for codec in ("null", "deflate"):
        file = io.BytesIO()
        fastavro.writer(file, schema, [record] * 3, codec=codec, sync_marker=b"0123456789abcdef")
        seeds[f"{codec}.avro"] = file.getvalue()
    file = io.BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(schema), record)
    seeds["framed.avro"] = b"\0\0\0\3\x84" + file.getvalue()

    packed = {name: seeds[name] for name in ("null.avro", "ext.fits", "zipped.fits.gz")}
    for kind in ("", "gz"):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=f"w:{kind}") as archive:
            for name, data in packed.items():
                member = tarfile.TarInfo(f"night/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        seeds[f"night.tar.{kind}"] = re.sub(
            rb"^(\x1f\x8b\x08.)....", rb"\1\0\0\0\0", file.getvalue(), flags=re.DOTALL
        )

    cutout = {"$binary": {"base64": base64.b64encode(record["cutoutScience"]["stampData"]).decode()}}
    written = [
        {
            "candid": number,
            "cutoutScience": cutout,
            "cutoutTemplate": stamps[1].tolist(),
            "cutoutDifference": None,
        }
        for number in range(2)
    ]
    seeds["records.json"] = json.dumps(written).encode()
    seeds["lines.json.gz"] = gzip.compress("\n".join(map(json.dumps, written)).encode(), mtime=0)

    file = io.BytesIO()
    np.save(file, stamps)
    seeds["stack.npy"] = file.getvalue()
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, science=stamps[:1], reference=stamps[1:2], difference=stamps[2:])
        seeds[f"{save.__name__}.npz"] = file.getvalue()
    return seeds | _parquet(plain) | _hdf5(stamps) | _beside_stamps(stamps)


def _timeless(raw: bytes) -> bytes:
    """Without the clock time that gzip puts into compressed tiles."""
    return re.sub(rb"(\x1f\x8b\x08.)....", rb"\1\0\0\0\0", raw, flags=re.DOTALL)


def _beside_stamps(stamps: np.ndarray) -> dict[str, bytes]:
    """What is read beside stamps: frames, catalogues of positions, layouts. The name says how to read it."""
    from astropy.io import fits
    from astropy.table import Table
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [10, 20], [-1e-4, 1e-4]
    frame = io.BytesIO()
    mask = fits.ImageHDU((stamps[0] > 105).astype(np.uint8), name="MASK")
    fits.HDUList([fits.PrimaryHDU(stamps[0], wcs.to_header()), mask]).writeto(frame)
    seeds = {"frame.fits": frame.getvalue()}
    for kind in ("GZIP_2", "RICE_1", "HCOMPRESS_1"):
        frame = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(stamps[0], compression_type=kind)]).writeto(frame)
        seeds[f"frame.{kind}.fits.fz"] = _timeless(frame.getvalue())
    table = Table({"id": ["a", "b"], "x": [3.0, 9.0], "y": [4.0, 20.0], "ra": [10.0, 10.001]})
    for kind, ending in (("ascii.csv", "csv"), ("ascii.ecsv", "ecsv"), ("votable", "xml"), ("fits", "fits")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "x")
            table.write(path, format=kind)
            seeds[f"catalog.{ending}"] = path.read_bytes()
    named = Table({"science": ["a.fits", "b.npy"], "reference": ["c.fits", ""], "fwhm": [2.0, 3.0]})
    for kind, ending in (("ascii.csv", "csv"), ("ascii.ecsv", "ecsv"), ("fits", "fits")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "x")
            named.write(path, format=kind)
            seeds[f"candidates.{ending}"] = path.read_bytes()
    seeds["catalog.cat"] = b"# 1 NUMBER\n# 2 X_IMAGE\n# 3 Y_IMAGE\n 1 3.0 4.0\n 2 9.0 20.0\n"
    seeds["layout.toml"] = (
        b'name = "x"\nrecognise = ["^x"]\npixel_scale = 0.3\norder = ["reference", "science", "difference"]\n'
        b'[fields]\nscience = ["new", "1"]\nid = "name"\n[bands]\n1 = "g"\n'
    )
    return seeds


def _parquet(plain: list[bytes]) -> dict[str, bytes]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return {}
    columns = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
    table = pyarrow.table({"candid": [1, 2], **{n: [b, b] for n, b in zip(columns, plain, strict=True)}})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    return {"packets.parquet": file.getvalue()}


def _hdf5(stamps: np.ndarray) -> dict[str, bytes]:
    try:
        import h5py
    except ImportError:
        return {}
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        h5["triplets"] = stamps[None]
    return {"stack.h5": file.getvalue()}


def mutate(raw: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to four changes: bits, cuts, splices, repeats; cards, counts, lengths; inside gzip for some."""
    if raw[:2] == b"\x1f\x8b" and len(raw) < 2**20 and rng.random() < 0.5:
        try:
            return gzip.compress(mutate(gzip.decompress(raw), rng, others), 1, mtime=0)
        except (OSError, EOFError, zlib.error):
            pass
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        if not data:
            break
        # Half of the changes go where structure is: the first kilobytes.
        at = rng.randrange(min(len(data), 4096) if rng.random() < 0.5 else len(data))
        kind = rng.randrange(11)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice(INTERESTING)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.randint(1, 3000)]
        elif kind == 4:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            data[at:at] = other[start : start + rng.randint(1, 6000)]
        elif kind == 5:
            data[at:at] = data[at : at + rng.randint(1, 3000)]
        elif kind < 10:
            (_edit_card, _edit_number, _edit_varint, _edit_member)[kind - 6](data, rng)
        else:
            data[at : at + 8] = rng.choice((b"\xff" * 8, bytes(8), rng.randbytes(8)))
    return bytes(data)


def _edit_card(data: bytearray, rng: random.Random) -> None:
    token = rng.choice(KEYWORDS)
    places = [found.start() for found in re.finditer(re.escape(token), data)]
    if places:
        at = rng.choice(places) + len(token)
        data[at : at + 21] = b" " + rng.choice(VALUES).rjust(20)


def _edit_number(data: bytearray, rng: random.Random) -> None:
    """Another number in a text: a shape in NumPy's header, a count in XML, a cell, a value in JSON."""
    places = [found.span() for found in re.finditer(rb"(?<![0-9])[0-9]{1,12}(?![0-9])", data[:8192])]
    if not places:
        return
    start, end = rng.choice(places)
    number = str(rng.choice(COUNTS)).encode()
    data[start:end] = number
    if data[:6] == b"\x93NUMPY":
        # The header keeps its length: what the number has more, the filling has less.
        line = data.find(b"\n")
        data[line - (len(number) - (end - start)) : line] = b"" if len(number) > end - start else b" "


def _edit_varint(data: bytearray, rng: random.Random) -> None:
    """Another varint: Avro's counts, block sizes and lengths, the numbers of a Parquet footer."""
    if data[:4] == b"Obj\x01":
        # Behind each sync marker stand the number of a block's records and its size.
        sync = bytes(data[-16:])
        places = [found.end() for found in re.finditer(re.escape(sync), data[:-16])] or [4]
        places += [_behind_varint(data, place) for place in places]
        places.append(rng.randrange(len(data)))
    elif data[:4] == b"PAR1":
        places = [rng.randrange(max(0, len(data) - 1500), len(data))]
    else:
        places = [rng.randrange(len(data))]
    at = rng.choice(places)
    count = rng.choice(COUNTS) & (2**64 - 1)
    count = (count << 1 ^ -(count >> 63)) & (2**64 - 1) if rng.random() < 0.8 else count
    raw = bytearray()
    while count > 0x7F:
        raw.append(count & 0x7F | 0x80)
        count >>= 7
    raw.append(count)
    data[at : _behind_varint(data, at)] = raw


def _behind_varint(data: bytearray, at: int) -> int:
    while at < len(data) and data[at] > 0x7F:
        at += 1
    return at + 1


def _edit_member(data: bytearray, rng: random.Random) -> None:
    """Another size of a member of a tar (its checksum follows) or zip archive."""
    heads = [found.start() - 257 for found in re.finditer(b"ustar", data) if found.start() >= 257]
    if heads:
        head = rng.choice(heads)
        data[head + 124 : head + 136] = b"%011o\0" % (abs(rng.choice(COUNTS)) % 8**11)
        data[head + 148 : head + 156] = b" " * 8
        data[head + 148 : head + 156] = b"%06o\0 " % sum(data[head : head + 512])
    elif found := [found.start() for found in re.finditer(b"PK\x01\x02|PK\x03\x04", data)]:
        at = rng.choice(found) + rng.choice((8, 10, 18, 20, 22, 24, 26, 28, 42))
        data[at : at + 4] = (rng.choice(COUNTS) & 0xFFFFFFFF).to_bytes(4, "little")


def read(path: str, name: str) -> list[str]:
    """Read a file as the seed of that name is meant to be read; what came of it."""
    from transientnet import cut_triplets
    from transientnet.cutting.catalog import read_catalog
    from transientnet.readers.layouts import load_layout
    from transientnet.readers.open import open_triplets

    if name.startswith("catalog."):
        read_catalog(path)
        return ["catalogue"]
    if name.startswith("layout."):
        load_layout(path)
        return ["layout"]
    if name.startswith("frame."):
        triplets = cut_triplets(path, path, None, np.array([[10.0, 10.0], [0.0, 20.0]]), size=9)
    else:
        triplets = open_triplets(path)
    return ["unreadable row" if t.error is not None else "triplet" for t in triplets]


def work(jobs: Connection, folder: str, limit: int) -> None:
    """Read each file that is sent, answer with what came of it."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (6 * limit, 6 * limit))
    from transientnet.errors import TransientnetError

    warnings.simplefilter("ignore")
    path = os.path.join(folder, f"{os.getpid()}.bin")
    while (job := jobs.recv()) is not None:
        name, raw = job
        Path(path).write_bytes(raw)
        try:
            jobs.send((collections.Counter(read(path, name)), None))
        except TransientnetError as error:
            jobs.send((collections.Counter([type(error).__name__]), None))
        except BaseException:
            jobs.send((collections.Counter(["finding"]), traceback.format_exc()))


class Worker:
    """A process that may die: started anew when it does."""

    def __init__(self, folder: str, limit: int) -> None:
        self._args = (folder, limit)
        self.peaks = [0]
        self._start()

    def _start(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs, *self._args))
        self.process.start()
        theirs.close()

    def read(self, name: str, raw: bytes, seconds: float) -> tuple[collections.Counter[str], str | None]:
        try:
            self.pipe.send((name, raw))
            if self._answers_within(seconds):
                outcome: tuple[collections.Counter[str], str | None] = self.pipe.recv()
                if (peak := self.peak()) <= self._args[1]:
                    return outcome
                self.peaks.append(peak)
                problem = f"memory: more than {self._args[1] / 2**20:.0f} MiB resident"
            else:
                problem = f"hang: longer than {seconds} s"
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode or 0
            problem = f"crash: {signal.Signals(-code).name if code < 0 else f'exit {code}'}"
        self.stop()
        self._start()
        return collections.Counter(["finding"]), problem

    def _answers_within(self, seconds: float) -> bool:
        """Wait until the worker has used that much processor time: a busy machine is no hang."""
        started, patience = self.cpu(), time.monotonic() + 60 * seconds
        while not self.pipe.poll(0.25):
            if self.cpu() - started > seconds or time.monotonic() > patience:
                return False
        return True

    def cpu(self) -> float:
        """Processor time of the worker, in seconds; wall clock where the system does not tell."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return time.monotonic()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.kill()
        self.process.join()

    def peak(self) -> int:
        """Peak resident memory of the process, in bytes; 0 where the system does not tell."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return 0
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) * 1024 if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=100_000)
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder of real files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="processor time for one file")
    parser.add_argument("--memory", type=int, default=700 * 2**20, help="most resident memory, bytes")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    args = parser.parse_args()

    seeds = simulated()
    for folder in args.data:
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size < 2**21):
            seeds[path.name] = path.read_bytes()
    pool = list(seeds.values())
    names = list(seeds)
    # Large files take long and have no more structure than small ones.
    weights = [1 / max(len(raw), 2**14) for raw in pool]
    rng = random.Random(args.seed)
    total: collections.Counter[str] = collections.Counter()
    findings: collections.Counter[str] = collections.Counter()
    started, slowest, peak = time.monotonic(), 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(folder, args.memory)
        worker.read(names[0], pool[0], 120.0)  # imports
        for i in range(args.mutations):
            name = rng.choices(names, weights)[0]
            raw = mutate(seeds[name], rng, pool)
            before = time.monotonic()
            outcomes, problem = worker.read(name, raw, args.seconds)
            slowest = max(slowest, time.monotonic() - before)
            total.update(outcomes.keys())
            if problem is not None:
                key = problem.strip().splitlines()[-1][:120]
                findings[key] += 1
                if findings[key] <= 3:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    (args.keep / f"{i}-{name}").write_bytes(raw)
                    (args.keep / f"{i}-{name}.txt").write_text(problem)
            if i % 2000 == 1999:
                peak = max(peak, worker.peak())
                rate = (i + 1) / (time.monotonic() - started)
                print(
                    f"{i + 1} mutations, {rate:.0f} a second, {sum(findings.values())} findings",
                    file=sys.stderr,
                )
        peak = max(peak, worker.peak(), *worker.peaks)
        worker.stop()
    print(f"{args.mutations} mutations of {len(seeds)} files, seed {args.seed}")
    print(f"outcomes (files with at least one): {dict(total)}")
    print(f"slowest file {slowest:.2f} s; peak memory of the worker {peak / 2**20:.0f} MiB")
    print(f"findings: {sum(findings.values())}")
    for problem, count in findings.most_common():
        print(f"  {count} × {problem}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
