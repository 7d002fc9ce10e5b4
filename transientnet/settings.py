"""The only reader of the environment: variables that change behaviour, and what the machine grants."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings", "cores", "get_settings", "memory_limit"]

#: Megabytes.
_MEMORY = 512


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
        cache = os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "transientnet")
    return Settings(
        # os.path's leaves "~" where there is no home; Path's would raise.
        cache_dir=Path(os.path.expanduser(cache)),
        registries=tuple(env.get("TRANSIENTNET_REGISTRY", "").replace(",", " ").split()),
        offline=_truthy(env.get("TRANSIENTNET_OFFLINE")) or _truthy(env.get("HF_HUB_OFFLINE")),
    )


def memory_limit() -> int:
    """Bytes that reading and scoring one file, or one batch of candidates, may take in a process.

    ``TRANSIENTNET_MEMORY`` in megabytes (2**20 bytes); 512 where it is not set or is no positive number. What
    the process needs before it reads anything (libraries, the network) comes on top.
    """
    try:
        given = float(os.environ.get("TRANSIENTNET_MEMORY", ""))
    except ValueError:
        given = 0.0
    return int((given if 1 <= given < 2**40 else _MEMORY) * 2**20)


def cores(hierarchy: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may use: what scheduler and container grant, not what is built in.

    Parameters
    ----------
    hierarchy : Path
        Where Linux mounts its control groups, of version 1 or 2; absent on other systems.
    membership : Path
        The groups that this process belongs to.

    Returns
    -------
    int
        At least 1; a quota of 2.5 cores counts as 3, one of 2.4 as 2.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = (_quota(folder) for folder in _control_groups(hierarchy, membership))
    return max(1, min([count, *(int(quota + 0.5) for quota in quotas if quota is not None)]))


def _control_groups(hierarchy: Path, membership: Path) -> Iterator[Path]:
    """Folders whose quota binds the process: its own group and every one above it."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    # In a container the path may be the host's: the mounted root is then the group itself.
    yield from {hierarchy, hierarchy / "cpu", hierarchy / "cpu,cpuacct"}
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in (controllers, "cpu") if controllers else ("",):
            yield from ((hierarchy / mount).joinpath(*parts[:n]) for n in range(1, len(parts) + 1))


def _quota(group: Path) -> float | None:
    """Cores that one control group grants; None where it sets no limit."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        # No such file, or "max": no limit.
        return None
    return cores if cores > 0 else None
