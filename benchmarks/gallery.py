"""Size of a gallery of many candidates, and how long a browser takes until its first rows stand.

python benchmarks/gallery.py [CANDIDATES]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browsing import DESKTOP, chromium, open_page  # noqa: E402

from training_reference.simulator import simulate  # noqa: E402
from transientnet import Triplet  # noqa: E402
from transientnet.drawing.gallery import GalleryWriter  # noqa: E402

DRAWN = "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"


def main(candidates: int) -> None:
    rng = np.random.default_rng(0)
    simulated = simulate(500, 0).triplets
    noise = rng.normal(size=(500, 3, 63, 63)).astype(np.float32)
    for name, images in (("simulated", simulated), ("white noise", noise)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "night.html"
            p = rng.random(candidates, np.float32)
            started = time.perf_counter()
            with GalleryWriter(path, ("bogus", "real")) as gallery:
                for k in range(candidates):
                    where = {
                        "source": f"/data/night/packet{k // 50}.avro",
                        "ra": 150 + k / 1e3,
                        "dec": k / 1e3,
                    }
                    triplet = Triplet(*images[k % 500], id=f"ZTF26c{k:07d}", pixel_scale=1.01, meta=where)
                    gallery.add([triplet], np.array([[1 - p[k], p[k]]]), np.zeros(1, np.uint16))
            written = time.perf_counter() - started
            size = path.stat().st_size / 1e6
            with chromium() as browser:
                took = []
                for _ in range(3):
                    page = open_page(browser, DESKTOP)
                    page.goto(path.as_uri(), wait_until="commit")
                    page.wait_for_selector("figure", timeout=60000)
                    took.append(page.evaluate(DRAWN) / 1e3)
                    page.close()
            print(
                f"{candidates} candidates, {name}: {size:.1f} MB, written in {written:.1f} s "
                f"({1e3 * written / candidates:.2f} ms each), "
                f"first rows after {min(took):.2f} to {max(took):.2f} s"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
