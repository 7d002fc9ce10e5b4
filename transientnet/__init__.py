"""Real/bogus and host-morphology classification of difference-image stamps, for any telescope."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "AdaptConfig": "adapt",
    "AdaptResult": "adapt",
    "Classifier": "classifier",
    "InputContract": "contract",
    "ModelRecord": "contract",
    "Predictions": "predictions",
    "QualityFlag": "triplet",
    "TransientnetError": "errors",
    "Triplet": "triplet",
    "adapt": "adapt",
    "classify": "scoring",
    "list_models": "registry",
    "load_model": "classifier",
    "open_triplets": "readers",
}

__all__ = [
    "AdaptConfig",
    "AdaptResult",
    "Classifier",
    "InputContract",
    "ModelRecord",
    "Predictions",
    "QualityFlag",
    "TransientnetError",
    "Triplet",
    "__version__",
    "adapt",
    "classify",
    "list_models",
    "load_model",
    "open_triplets",
]

if TYPE_CHECKING:
    from .classifier import Classifier, load_model
    from .contract import InputContract, ModelRecord
    from .errors import TransientnetError
    from .predictions import Predictions
    from .readers import open_triplets
    from .registry import list_models
    from .scoring import classify
    from .triplet import QualityFlag, Triplet


def __getattr__(name: str) -> Any:
    # PEP 562: importing the package must load neither onnxruntime nor torch.
    if name in _LAZY:
        value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
