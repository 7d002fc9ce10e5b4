"""ONNX Runtime, silent: its newer builds report the use of a model to their maker, over the network."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["onnx_runtime"]


def onnx_runtime() -> Any:
    """The module `onnxruntime`, whose telemetry is off in this process and in those that it starts."""
    # Read when the library is loaded; a program that loaded it before us is covered by the call.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    getattr(onnxruntime, "disable_telemetry_events", lambda: None)()
    return onnxruntime
