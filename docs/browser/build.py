"""What the page "Try it on your own stamps" loads: put beside it when the documentation is built.

Runtime: onnxruntime-web as pinned in ``package-lock.json`` (``npm ci --ignore-scripts`` here fetches it), its
WebAssembly gzipped. Models: the raw model of each bundled network. Where the runtime was not fetched, the
page says so and nothing else is missing.
"""

from __future__ import annotations

import gzip
import json
import logging
import shutil
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUNTIME = HERE / "node_modules" / "onnxruntime-web"
MODELS = {
    "realbogus": "real or bogus",
    "3class": "three kinds",
    "4class": "four kinds",
    "5class": "five kinds",
}
EXAMPLES = ("supernova_faint.fits", "cosmic_ray.fits")


def on_post_build(config: Any) -> None:
    """MkDocs calls this when the pages are written."""
    assemble(Path(config["site_dir"]) / "browser")


def assemble(folder: Path) -> None:
    """Write runtime, models, readers and examples into `folder`."""
    shutil.copy(ROOT / "examples" / "javascript" / "readers.mjs", folder)
    if not RUNTIME.is_dir():
        logging.getLogger("mkdocs").info("docs/browser: no runtime; npm ci --ignore-scripts there fetches it")
        return
    import onnxruntime

    from transientnet import QualityFlag, load_model
    from transientnet.models.raw import raw_path

    shutil.copy(RUNTIME / "dist" / "ort.wasm.bundle.min.mjs", folder / "ort.mjs")
    wasm = (RUNTIME / "dist" / "ort-wasm-simd-threaded.wasm").read_bytes()
    # No .gz in the name: servers would announce it as packed, and browsers unpack it once too often.
    (folder / "ort.wasm.bin").write_bytes(gzip.compress(wasm, 9, mtime=0))
    # The wheel of the same project carries the texts that the package for browsers leaves out.
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        text = Path(onnxruntime.__file__).with_name(name)
        shutil.copy(text, folder / f"onnxruntime-{text.stem}.txt")
    models = []
    for name, description in MODELS.items():
        shutil.copy(raw_path(name), folder / f"{name}.onnx")
        models.append(
            {
                "name": name,
                "description": description,
                "bytes": (folder / f"{name}.onnx").stat().st_size,
                "classes": load_model(name, threads=1).classes,
                "flags": {flag.name: int(flag) for flag in QualityFlag if flag.name},
            }
        )
    for name in EXAMPLES:
        shutil.copy(ROOT / "docs" / "examples" / "cutouts" / name, folder)
    runtime = sum((folder / name).stat().st_size for name in ("ort.mjs", "ort.wasm.bin"))
    (folder / "parts.json").write_text(
        json.dumps({"runtime": runtime, "models": models, "examples": EXAMPLES}), encoding="utf-8"
    )
