"""Every command under ``--offline`` with hostile inputs: no socket, and no file that an input names.

    python benchmarks/no_sockets.py [--strace]

Each command runs in a process whose audit hook counts sockets, look-ups of hosts, and openings of the decoy
files that the inputs point to; with ``--strace`` the system calls of it and of its children are counted too.
Exit code 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples" / "cutouts"
URL = "http://127.0.0.1:9/elsewhere"

CALLS = re.compile(r"\b(?:socket|connect)\(")
WATCH = """
import sys
def hook(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        sys.stderr.write(f"OPENED {event} {arguments}\\n")
    if event == "open" and "decoy" in str(arguments[0]):
        sys.stderr.write(f"OPENED {arguments[0]}\\n")
sys.addaudithook(hook)
from transientnet.cli import main
sys.argv = ["transientnet", *sys.argv[1:]]
main()
"""

VOTABLE = """<?xml version="1.0"?>
{head}<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>
<FIELD name="id" datatype="char" arraysize="*"/><FIELD name="x" datatype="double"/>
<FIELD name="y" datatype="double"/><FIELD name="science" datatype="char" arraysize="*"/>
<FIELD name="label" datatype="char" arraysize="*"/>
<DATA>{data}</DATA></TABLE></RESOURCE></VOTABLE>
"""


def hostile(folder: Path) -> dict[str, Path]:
    """Inputs that point elsewhere: to a server, and to a decoy file."""
    from astropy.io import fits
    from astropy.table import Table

    decoy = folder / "decoy"
    decoy.mkdir()
    rows = "<TABLEDATA><TR><TD>&far;</TD><TD>5</TD><TD>5</TD><TD>a</TD><TD>real</TD></TR></TABLEDATA>"
    entity = f'<!DOCTYPE VOTABLE [<!ENTITY far SYSTEM "file://{decoy}/entity">]>\n'
    texts = {
        "stream.xml": VOTABLE.format(head="", data=f'<BINARY2><STREAM href="{URL}"/></BINARY2>'),
        "file.xml": VOTABLE.format(head="", data=f'<FITS><STREAM href="file://{decoy}/t.fits"/></FITS>'),
        "entity.xml": VOTABLE.format(head=entity, data=rows),
        "named.csv": f"id,science,label,x,y\na,{URL},real,5,5\n",
        "alert.json": json.dumps({"candid": 1, "cutoutScience": URL, "cutoutTemplate": URL}),
        "times.ecsv": "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: science, datatype: string}\n"
        "# - {name: label, datatype: string}\n# - {name: mjd, datatype: float64}\n# schema: astropy-2.0\n"
        f"science label mjd\n{URL} real 99999.0\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    pixels = np.random.default_rng(0).normal(100, 5, (200, 200)).astype(np.float32)
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "DATE-OBS": "2099-01-01T00:00:00"}
    header = fits.Header({**cards, "CRVAL1": 10.0, "CRVAL2": 20.0, "CDELT1": -1e-4, "CDELT2": 1e-4})
    fits.PrimaryHDU(pixels, header).writeto(folder / "frame.fits")
    Table({"science": [URL], "label": ["real"], "id": ["a"]}).write(folder / "named.fits")
    found = {name: folder / name for name in (*texts, "named.fits", "frame.fits")}
    try:
        import h5py

        with h5py.File(folder / "links.h5", "w") as file:
            file["triplets"] = h5py.ExternalLink(str(decoy / "far.h5"), "triplets")
        found["links.h5"] = folder / "links.h5"
    except ImportError:
        pass
    return found


def commands(folder: Path, inputs: dict[str, Path]) -> list[list[str]]:
    """What a user may type, offline."""
    tables = [str(path) for name, path in inputs.items() if name != "frame.fits"]
    frame, out = str(inputs["frame.fits"]), str(folder / "out.csv")
    runs = [
        ["score", *tables, str(EXAMPLES), "-o", out, "--offline", "--workers", "2"],
        ["score", str(EXAMPLES), "--offline", "-m", f"{URL}#nightly"],
        ["score", str(EXAMPLES), "--offline", "-m", "hf://team/models"],
        ["models", "list"],
        ["models", "show", "realbogus"],
        ["models", "verify", "realbogus"],
        ["models", "path", "realbogus"],
        ["models", "pull", f"{URL}#nightly"],
        ["doctor"],
        ["completeness", str(EXAMPLES), "-o", str(folder / "completeness")],
    ]
    for table in tables:
        runs.append(["inspect", table])
        runs.append(["cut", "--science", frame, "--catalog", table, "-o", str(folder / "cut")])
        runs.append(["evaluate", "--labels", table, "-o", str(folder / "report")])
    runs.append(["adapt", "--labels", tables[0], "--dry-run", "-o", str(folder / "model")])
    runs.append(["monitor", out, out, "-o", str(folder / "drift.html")])
    return runs


def opened(arguments: list[str], folder: Path, strace: bool) -> list[str]:
    """Sockets and decoys that one command has opened."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TRANSIENTNET_OFFLINE": "1"}
    env |= {"TRANSIENTNET_CACHE": str(folder / "cache"), "TRANSIENTNET_REGISTRY": f"{URL} hf://team/models"}
    trace = folder / "strace.log"
    before = ["strace", "-f", "-qq", "-e", "trace=socket,connect,openat", "-o", str(trace)] if strace else []
    run = subprocess.run(
        [*before, sys.executable, "-c", WATCH, *arguments], env=env, cwd=folder, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    lines = run.stderr.splitlines()
    found = [line for line in lines if line.startswith("OPENED")]
    found += [line for line in lines[-1:] if "Error" in line and "Traceback" in run.stderr]
    if strace:
        calls = trace.read_text(errors="replace").splitlines()
        # Between the calls stand signals and ends of processes.
        found += [line for line in calls if CALLS.search(line) or f"{folder}/decoy/" in line]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strace", action="store_true", help="count system calls too")
    options = parser.parse_args()
    if options.strace and shutil.which("strace") is None:
        print("strace is not installed", file=sys.stderr)
        return 2
    total = 0
    with tempfile.TemporaryDirectory(prefix="offline-") as name:
        folder = Path(name)
        runs = commands(folder, hostile(folder))
        for arguments in runs:
            found = opened(arguments, folder, options.strace)
            total += len(found)
            for line in found[:5]:
                print(f"{' '.join(arguments)[:90]}: {line}", flush=True)
    print(f"{len(runs)} commands; opened against the rules: {total}")
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
