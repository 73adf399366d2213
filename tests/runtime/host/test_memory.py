"""Memory of a container, on /proc and /sys trees of the tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from embedpack import CapacityError
from embedpack.host.memory import available_memory, check_memory, peak_memory

MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\nBuffers: 5 kB\n"
SYSTEM = {"proc/meminfo": MEMINFO}
V2 = {**SYSTEM, "proc/self/cgroup": "0::/\n"}
V1 = {**SYSTEM, "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"}
AVAILABLE = 8_192_000_000


def plant(root: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def v1(folder: str, limit: int, usage: int) -> dict[str, str]:
    base = f"sys/fs/cgroup/memory/{folder}".rstrip("/")
    return {f"{base}/memory.limit_in_bytes": f"{limit}\n", f"{base}/memory.usage_in_bytes": f"{usage}\n"}


def v2(folder: str, limit: int | str, usage: int) -> dict[str, str]:
    base = f"sys/fs/cgroup/{folder}".rstrip("/")
    return {f"{base}/memory.max": f"{limit}\n", f"{base}/memory.current": f"{usage}\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, None, id="nothing_known"),
        pytest.param({"proc/meminfo": "MemTotal: 16000000 kB\n"}, None, id="old_kernel"),
        pytest.param(SYSTEM, AVAILABLE, id="no_cgroups"),
        pytest.param(V2, AVAILABLE, id="v2_without_files"),
        pytest.param({**V2, **v2("", "max", 5)}, AVAILABLE, id="v2_max"),
        pytest.param({**V2, **v2("", 2_000, 500)}, 1_500, id="v2"),
        pytest.param({**V2, **v2("", 2_000, 2_500)}, 0, id="v2_over_its_limit"),
        pytest.param({**V2, **v2("", 64 << 30, 0)}, AVAILABLE, id="v2_more_than_there_is"),
        pytest.param({**V2, "sys/fs/cgroup/memory.max": "2000\n"}, AVAILABLE, id="v2_usage_unknown"),
        pytest.param(
            {
                **V2,
                "proc/self/cgroup": "0::/user.slice/app/worker\n",
                **v2("user.slice/app/worker", 9_000, 1_000),
                **v2("user.slice/app", 9_000, 6_000),
                **v2("user.slice", "max", 8_000),
            },
            3_000,
            id="v2_nested_least_counts",
        ),
        pytest.param(
            {**V2, "proc/self/cgroup": "0::/docker/abc\n", **v2("", 2_000, 500)},
            1_500,
            id="v2_container_with_the_path_of_its_host",
        ),
        pytest.param({**V2, "proc/self/cgroup": "0::/a\n", **v2("b", 2_000, 500)}, AVAILABLE, id="v2_neighbour"),
        pytest.param(
            {
                **V2,
                **v2("", 2_000, 1_800),
                "sys/fs/cgroup/memory.stat": "anon 500\nfile 1300\nactive_file 900\ninactive_file 400\nslab 9\n",
            },
            1_500,
            id="v2_pages_of_files_are_dropped",
        ),
        pytest.param({**V1, **v1("docker/abc", 2_000, 500)}, 1_500, id="v1"),
        pytest.param(
            {
                **V1,
                **v1("docker/abc", 2_000, 1_800),
                "sys/fs/cgroup/memory/docker/abc/memory.stat": (
                    "active_file 1\ninactive_file 1\ntotal_active_file 900\ntotal_inactive_file 400\n"
                ),
            },
            1_500,
            id="v1_pages_of_files_are_dropped",
        ),
        pytest.param({**V1, **v1("docker/abc", 2**63 - 4096, 500)}, AVAILABLE, id="v1_no_limit"),
        pytest.param({**V1, **v1("", 3_000, 500)}, 2_500, id="v1_container_with_the_path_of_its_host"),
        pytest.param({**V1, **v1("docker/abc", 9_000, 0), **v1("docker", 9_000, 8_000)}, 1_000, id="v1_nested"),
        pytest.param(
            {**V1, "proc/self/cgroup": "4:cpu:/docker/abc\n", **v1("docker/abc", 2_000, 500)},
            AVAILABLE,
            id="v1_other_controller",
        ),
        pytest.param(
            {**V1, "proc/self/cgroup": V1["proc/self/cgroup"] + "0::/\n", **v1("docker/abc", 2_000, 500)},
            1_500,
            id="hybrid",
        ),
        pytest.param({"proc/self/cgroup": "0::/\n", **v2("", 2_000, 500)}, 1_500, id="cgroup_alone"),
    ],
)
def test_available_memory(tmp_path: Path, files: Mapping[str, str], expected: int | None) -> None:
    assert available_memory(plant(tmp_path, files)) == expected


def test_this_machine_has_memory() -> None:
    found = available_memory()
    assert found is None or found > 0


def test_too_much_is_refused(tmp_path: Path) -> None:
    plant(tmp_path, {**V2, **v2("", 2_000_000_000, 500_000_000)})
    check_memory(1_500_000_000, "the work", "do less", tmp_path)
    with pytest.raises(CapacityError) as caught:
        check_memory(1_600_000_000, "the work", "do less", tmp_path)
    assert str(caught.value) == "the work needs about 1600 MB of memory, 1500 MB are available; do less"


def test_nothing_is_refused_where_nothing_is_known(tmp_path: Path) -> None:
    check_memory(1 << 60, "the work", "do less", tmp_path)


def test_the_peak_of_this_process_is_not_below_its_resident_memory() -> None:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    # The system updates the two at different times.
    assert peak_memory() > 0.9 * resident > 0
