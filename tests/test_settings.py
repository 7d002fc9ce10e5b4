"""What the machine grants and what the environment asks for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from transientnet.settings import cores, get_settings

UNBOUND = cores(Path("/nowhere"), Path("/nowhere/cgroup"))


def granted(folder: Path, files: dict[str, str], membership: str) -> int:
    """Cores under made-up control groups; ten are built in."""
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "membership").write_text(membership)
    return cores(folder / "cgroup", folder / "membership")


@pytest.fixture(autouse=True)
def ten_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(10)), raising=False)


@pytest.mark.parametrize(
    ("files", "membership", "expected"),
    [
        ({}, "", 10),
        ({"cpu.max": "max 100000\n"}, "0::/\n", 10),
        ({"cpu.max": "400000 100000\n"}, "0::/\n", 4),
        ({"cpu.max": "2000000 100000\n"}, "0::/\n", 10),
        # Fractions go to the nearest number, and never to none.
        ({"cpu.max": "250000 100000\n"}, "0::/\n", 3),
        ({"cpu.max": "240000 100000\n"}, "0::/\n", 2),
        ({"cpu.max": "10000 100000\n"}, "0::/\n", 1),
        # Version 2, nested: the tightest of a group and those above it counts.
        (
            {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n", "a/b/c/cpu.max": "700000 100000"},
            "0::/a/b/c\n",
            3,
        ),
        ({"other/cpu.max": "100000 100000\n"}, "0::/a\n", 10),
        # The host's path, seen from a container whose own group is the root of the mount.
        ({"cpu.max": "500000 100000\n"}, "0::/system.slice/docker-1.scope\n", 5),
        ({"cpu.max": "500000 100000\n"}, "0::/../../other\n", 5),
        # Version 1, under either name of the mount.
        (
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "600000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
            "4:cpu,cpuacct:/job\n7:memory:/job\n",
            6,
        ),
        (
            {"cpu/job/cpu.cfs_quota_us": "150000\n", "cpu/job/cpu.cfs_period_us": "50000\n"},
            "4:cpu,cpuacct:/job\n",
            3,
        ),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu:/docker/1\n", 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu:/\n", 10),
        # What cannot be understood sets no limit.
        ({"cpu.max": "rubbish\n"}, "no colon at all\n", 10),
        ({"cpu.max": "100000 0\n"}, "0::/\n", 10),
    ],
)
def test_quotas_of_control_groups(
    tmp_path: Path, files: dict[str, str], membership: str, expected: int
) -> None:
    assert granted(tmp_path, files, membership) == expected


def test_systems_without_control_groups_or_affinity_count_their_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores(Path("/nowhere"), Path("/nowhere/cgroup")) == 6


def test_an_unknown_user_without_a_home_gets_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "TRANSIENTNET_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000, raising=False)
    assert get_settings().cache_dir.name == "transientnet"
