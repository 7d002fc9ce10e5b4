"""The only reader of the environment: variables that change behaviour, and what the machine grants."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings", "cores", "get_settings"]


def _truthy(value: str | None) -> bool:
    return (value or "").strip().lower() in {"1", "true", "yes", "on"}


@dataclass(frozen=True, slots=True)
class Settings:
    """Environment of one call.

    Attributes
    ----------
    cache_dir : Path
        Where fetched models live: ``TRANSIENTNET_CACHE``, else ``$XDG_CACHE_HOME/transientnet``,
        else ``~/.cache/transientnet``.
    registries : tuple of str
        ``TRANSIENTNET_REGISTRY``: folders, ``https://`` manifests or ``hf://org/repo``, separated
        by commas or white space, asked in this order after the bundled weights.
    offline : bool
        ``TRANSIENTNET_OFFLINE`` or ``HF_HUB_OFFLINE``: open no socket.
    """

    cache_dir: Path
    registries: tuple[str, ...]
    offline: bool


def get_settings() -> Settings:
    """Read the environment now, so that a change between two calls counts."""
    env = os.environ
    cache = env.get("TRANSIENTNET_CACHE")
    if not cache:
        cache = os.path.join(env.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "transientnet")
    return Settings(
        cache_dir=Path(cache).expanduser(),
        registries=tuple(env.get("TRANSIENTNET_REGISTRY", "").replace(",", " ").split()),
        offline=_truthy(env.get("TRANSIENTNET_OFFLINE")) or _truthy(env.get("HF_HUB_OFFLINE")),
    )


def cores() -> int:
    """Cores that this process may use: what scheduler and container grant, not what is built in."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):
        # No such file, or "max": no limit.
        return count
