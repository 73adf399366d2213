"""The name of a CPU changes with every feature that decides the layout of packed weights, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedpack.host.cpu import cpu_identity

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Some CPU
stepping\t: 8
cpu MHz\t\t: 2000.000
flags\t\t: fpu sse4_2 avx2 avx512_vnni amx_int8 ht f16c

processor\t: 1
vendor_id\t: GenuineIntel
flags\t\t: fpu avx
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd asimddp i8mm
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
CPU revision\t: 1
"""


def plant(root: Path, content: str) -> Path:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(content)
    return root


def test_x86(tmp_path: Path) -> None:
    found = cpu_identity(plant(tmp_path, X86)).split(" ", 1)[1]
    assert found == "GenuineIntel 6 143 8 amx_int8 avx2 avx512_vnni f16c sse4_2"


def test_arm(tmp_path: Path) -> None:
    found = cpu_identity(plant(tmp_path, ARM)).split(" ", 1)[1]
    assert found == "0x41 8 0x1 0xd40 1 asimd asimddp fp i8mm"


@pytest.mark.parametrize(
    ("old", "new"),
    [("143", "144"), ("stepping\t: 8", "stepping\t: 9"), (" avx512_vnni", ""), ("avx2", "avx2 avx_vnni")],
)
def test_another_cpu_has_another_name(tmp_path: Path, old: str, new: str) -> None:
    before = cpu_identity(plant(tmp_path, X86))
    assert cpu_identity(plant(tmp_path, X86.replace(old, new))) != before


@pytest.mark.parametrize(
    ("old", "new"), [("2000.000", "3500.000"), ("fpu ", ""), ("avx2 avx512_vnni", "avx512_vnni avx2")]
)
def test_the_same_cpu_keeps_its_name(tmp_path: Path, old: str, new: str) -> None:
    before = cpu_identity(plant(tmp_path, X86))
    assert cpu_identity(plant(tmp_path, X86.replace(old, new))) == before


def test_system_without_cpuinfo(tmp_path: Path) -> None:
    assert cpu_identity(tmp_path) == cpu_identity(tmp_path / "none")
