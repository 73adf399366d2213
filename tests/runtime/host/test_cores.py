"""Cores of a container, on /proc and /sys trees of the tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from embedpack.host.cores import available_cores

V2 = {"proc/self/cgroup": "0::/\n"}
V1 = {"proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"}


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


def plant(root: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def siblings(pairs: Mapping[int, str]) -> dict[str, str]:
    return {
        f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": f"{cpus}\n" for cpu, cpus in pairs.items()
    }


def v1(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    base = f"sys/fs/cgroup/cpu/{folder}".rstrip("/")
    return {f"{base}/cpu.cfs_quota_us": f"{quota}\n", f"{base}/cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        pytest.param({}, 8, id="nothing_known"),
        pytest.param(V2, 8, id="v2_without_quota"),
        pytest.param({**V2, "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8, id="v2_max"),
        pytest.param({**V2, "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3, id="v2_three"),
        pytest.param({**V2, "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1, id="v2_half_a_core_is_one"),
        pytest.param({**V2, "sys/fs/cgroup/cpu.max": "190000 100000\n"}, 1, id="v2_almost_two_is_one"),
        pytest.param({**V2, "sys/fs/cgroup/cpu.max": "250000 50000\n"}, 5, id="v2_other_period"),
        pytest.param({**V2, "sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 8, id="v2_more_than_there_are"),
        pytest.param({**V2, "sys/fs/cgroup/cpu.max": ""}, 8, id="v2_empty_file"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/user.slice/app/worker\n",
                "sys/fs/cgroup/user.slice/app/worker/cpu.max": "600000 100000\n",
                "sys/fs/cgroup/user.slice/app/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
            },
            2,
            id="v2_nested_smallest_counts",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/user.slice/app\n",
                "sys/fs/cgroup/user.slice/other/cpu.max": "100000 100000\n",
            },
            8,
            id="v2_quota_of_a_neighbour",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"},
            4,
            id="v2_container_with_the_path_of_its_host",
        ),
        pytest.param({**V1, **v1("docker/abc", 200_000)}, 2, id="v1"),
        pytest.param({**V1, **v1("docker/abc", 50_000)}, 1, id="v1_half_a_core_is_one"),
        pytest.param({**V1, **v1("docker/abc", 190_000)}, 1, id="v1_almost_two_is_one"),
        pytest.param({**V1, **v1("docker/abc", -1)}, 8, id="v1_no_limit"),
        pytest.param({**V1, **v1("", 300_000)}, 3, id="v1_container_with_the_path_of_its_host"),
        pytest.param({**V1, **v1("docker/abc", 600_000), **v1("docker", 200_000)}, 2, id="v1_nested"),
        pytest.param(
            {"proc/self/cgroup": "5:memory:/docker/abc\n", **v1("docker/abc", 100_000)}, 8, id="v1_other_controller"
        ),
        pytest.param(
            {"proc/self/cgroup": V1["proc/self/cgroup"] + "0::/\n", **v1("docker/abc", 200_000)}, 2, id="hybrid"
        ),
        pytest.param(siblings({cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)}), 4, id="hyperthreads"),
        pytest.param(siblings({0: "0-1", 1: "0-1", 2: "2", 3: "3"}), 7, id="some_hyperthreads_some_unknown"),
        pytest.param(
            {
                **V2,
                "sys/fs/cgroup/cpu.max": "600000 100000\n",
                **siblings({cpu: f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}" for cpu in range(8)}),
            },
            4,
            id="quota_over_the_cores",
        ),
    ],
)
def test_cores(tmp_path: Path, files: Mapping[str, str], cores: int) -> None:
    assert available_cores(plant(tmp_path, files)) == cores


def test_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5})
    assert available_cores(tmp_path) == 2
    assert available_cores(plant(tmp_path, siblings({1: "1,5", 5: "1,5"}))) == 1


@pytest.mark.parametrize(("count", "cores"), [(6, 6), (None, 1)])
def test_system_without_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int | None, cores: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert available_cores(tmp_path) == cores


def test_this_machine_has_a_core() -> None:
    assert available_cores() >= 1
