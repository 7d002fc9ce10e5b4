"""Real/bogus and host-morphology classification of difference-image stamps, for any telescope."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_LAZY = {
    "AdaptConfig": "transfer.config",
    "AdaptResult": "transfer.outcome",
    "Classifier": "models.classifier",
    "InputContract": "prepare.contract",
    "ModelRecord": "models.record",
    "Predictions": "results.predictions",
    "QualityFlag": "triplet",
    "TransientnetError": "errors",
    "Triplet": "triplet",
    "adapt": "transfer.adapt",
    "classify": "scoring.classify",
    "completeness": "evaluation.completeness",
    "cut_triplets": "cutting.cut",
    "list_models": "models.registry.resolve",
    "load_model": "models.classifier",
    "open_triplets": "readers.open",
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
    "completeness",
    "cut_triplets",
    "list_models",
    "load_model",
    "open_triplets",
]

if TYPE_CHECKING:
    from .cutting.cut import cut_triplets
    from .errors import TransientnetError
    from .evaluation.completeness import completeness
    from .models.classifier import Classifier, load_model
    from .models.record import ModelRecord
    from .models.registry.resolve import list_models
    from .prepare.contract import InputContract
    from .readers.open import open_triplets
    from .results.predictions import Predictions
    from .scoring.classify import classify
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
