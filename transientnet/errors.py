"""One exception tree. Every error is also a standard-library class, and says what, where and the fix."""

from __future__ import annotations

__all__ = [
    "ContractError",
    "EmptyInputError",
    "LabelError",
    "MissingDependencyError",
    "ModelIntegrityError",
    "ModelNotFoundError",
    "ModelUnavailableError",
    "OutputError",
    "ReadError",
    "TransientnetError",
    "TransientnetWarning",
    "UsageError",
]


class TransientnetError(Exception):
    """Base of every error that this package raises on purpose.

    ``exit_code`` is what the command line returns when the error ends a run.
    """

    exit_code = 1


class TransientnetWarning(UserWarning):
    """What to know before the scores of a night are trusted."""


class OutputError(TransientnetError, OSError):
    """Results could not be written: a full disk, a folder without permission, a closed stream."""


class UsageError(TransientnetError, ValueError):
    """An argument is out of its range or does not fit the others."""

    exit_code = 2


class LabelError(UsageError):
    """A label table cannot be used as it is."""


class ReadError(TransientnetError, OSError):
    """A file, packet or stamp could not be read."""

    exit_code = 4


class EmptyInputError(ReadError):
    """Nothing readable was found where candidates were expected."""


class ModelUnavailableError(TransientnetError, OSError):
    """A model could not be fetched, found offline or written to the cache."""

    exit_code = 3


class ModelNotFoundError(ModelUnavailableError, LookupError):
    """No registry has a model of that name or version."""


class ModelIntegrityError(ModelUnavailableError, ValueError):
    """A weight file is not the one that the manifest pins, or is not a safe ONNX file."""


class ContractError(ModelUnavailableError, ValueError):
    """A model's record is malformed, or manifest, ONNX metadata and network contradict each other."""


class MissingDependencyError(TransientnetError, ImportError):
    """An optional dependency is needed for what was asked."""

    exit_code = 2

    @classmethod
    def for_extra(cls, extra: str, purpose: str) -> MissingDependencyError:
        """Name the extra that brings what `purpose` needs."""
        return cls(f"{purpose} needs an optional dependency: pip install 'transientnet[{extra}]'")
