"""What this machine has: the device, its kernels and free memory, the host's, the disks'. Probed when it is asked."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch
from huggingface_hub import constants

from longtake.backbones.attention import FASTER, Kernel, best_kernel, installed_kernels

__all__ = ["Device", "Machine", "probe_machine", "remarks_on"]

HEAD_SIZE = 128  # of HunyuanVideo's and Wan's attention
SPARE = 2 << 30  # bytes of host memory that are left to the system and to other programs
_CONTAINER = Path("/sys/fs/cgroup")
_CGROUPS = (  # limit and use of a container's memory, and what it is used for, version 2 and version 1
    ("memory.max", "memory.current", "memory.stat", ("inactive_file", "active_file")),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        ("total_inactive_file", "total_active_file"),
    ),
)


@dataclass(frozen=True, slots=True)
class Device:
    """What computes."""

    kind: Literal["cpu", "cuda", "mps"]
    name: str
    total: int  # bytes of memory; a CPU's and an Apple GPU's is the host's
    free: int
    capability: str  # of CUDA, such as 8.9; empty for others
    bf16: bool  # in hardware
    fp8: bool  # matrix products in it; storing in it needs nothing
    kernels: tuple[Kernel, ...]  # of attention, that can be used here
    kernel: Kernel  # the one that is
    link: str  # how the host reaches it, where that is known

    @property
    def dtype(self) -> torch.dtype:
        """What networks compute in here."""
        return torch.float32 if self.kind == "cpu" else torch.bfloat16

    @property
    def unified(self) -> bool:
        """True if its memory is the host's."""
        return self.kind != "cuda"

    @property
    def streams(self) -> bool:
        """True if blocks can be streamed to it."""
        return self.kind == "cuda"


@dataclass(frozen=True, slots=True)
class Machine:
    """All that decides what can run here."""

    device: Device
    host: int  # bytes
    host_free: int
    pinnable: int  # bytes of the host that may be locked for the device
    cores: int
    hub: Path  # where models are fetched to
    hub_free: int
    folder: Path  # where the video goes
    folder_free: int
    system: str
    torch: str
    cuda: str  # that torch was built for; empty for none
    driver: bool  # one of NVIDIA's is loaded


def probe_machine(device: torch.device, folder: Path) -> Machine:
    """This machine with one of its devices, and the disk of a folder that may not exist yet."""
    memory = psutil.virtual_memory()
    total, free = _contained(memory.total, memory.available)
    # Drivers of Windows, those beneath its Linux too, lock half of the memory at most.
    windows = sys.platform == "win32" or "microsoft" in platform.release().lower()
    hub = Path(constants.HF_HUB_CACHE)
    return Machine(
        device=_probe(device, total, free),
        host=total,
        host_free=free,
        pinnable=max(0, min(free - SPARE, total // 2 if windows else total)),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        hub=hub,
        hub_free=_free(hub),
        folder=folder,
        folder_free=_free(folder),
        system=f"{platform.system()} {platform.release()}",
        torch=torch.__version__,
        cuda=torch.version.cuda or "",
        driver=Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None,
    )


def remarks_on(machine: Machine) -> tuple[str, ...]:
    """What a user should know of this machine, worst first; each says what would do."""
    device, found = machine.device, []
    if device.kind == "cpu" and machine.driver and not machine.cuda:
        found.append(
            "there is an NVIDIA driver, but this PyTorch was built for CPUs: "
            'uv pip install --torch-backend=auto --reinstall-package torch "torch>=2.9,<2.14"'
        )
    elif device.kind == "cpu" and machine.driver:
        found.append("PyTorch sees no GPU although there is an NVIDIA driver: nvidia-smi says why, or --device cuda")
    elif device.kind == "cpu":
        found.append("no GPU: the embedded model is made for that, models of billions of parameters are not")
    if device.kind == "mps":
        found.append("an Apple GPU: weights are resident, blocks cannot be streamed to it")
    if device.kind == "cuda" and device.kernel == "tiled":
        found.append(
            "no fused attention kernel in bfloat16: it is computed in tiles, slower but in bounded memory "
            "(--attention tiled)"
        )
    if device.kind == "cuda" and device.capability.startswith("9.") and FASTER not in device.kernels:
        found.append(f"{FASTER} would compute attention 1.2 times as fast: pip install 'longtake[{FASTER}]'")
    if device.kind == "cuda" and not device.bf16:
        found.append("bfloat16 is emulated by this GPU: expect several times the seconds said here")
    if device.kind == "cuda" and device.total - device.free > device.total // 4:
        used = (device.total - device.free) / 2**30
        found.append(f"other programs hold {used:.1f} GiB of the GPU: close them to have all of it")
    return tuple(found)


def _probe(device: torch.device, host: int, host_free: int) -> Device:
    if device.type == "cuda":
        return _cuda(device)
    kind: Literal["cpu", "mps"] = "mps" if device.type == "mps" else "cpu"
    dtype = torch.float32 if kind == "cpu" else torch.bfloat16
    return Device(
        kind=kind,
        name=_processor(),
        total=host,
        free=host_free,
        capability="",
        bf16=kind == "mps",
        fp8=False,
        kernels=installed_kernels(device, dtype, HEAD_SIZE),
        kernel=best_kernel(device, dtype, HEAD_SIZE),
        link="unified",
    )


def _cuda(device: torch.device) -> Device:
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)  # the context of this process is not free any more
    capability = torch.cuda.get_device_capability(device)
    return Device(
        kind="cuda",
        name=properties.name,
        total=total,
        free=free,
        capability=".".join(map(str, capability)),
        bf16=capability >= (8, 0),
        fp8=capability >= (8, 9),
        kernels=installed_kernels(device, torch.bfloat16, HEAD_SIZE),
        kernel=best_kernel(device, torch.bfloat16, HEAD_SIZE),
        link=_link(f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"),
    )


def _link(place: str) -> str:
    """What PCI says of a device, such as "16.0 GT/s PCIe x16"; the most that it can, as links rest when they idle."""
    folder = Path("/sys/bus/pci/devices") / place
    try:
        speed, lanes = ((folder / name).read_text().strip() for name in ("max_link_speed", "max_link_width"))
    except OSError:
        return ""
    return f"{speed} x{lanes}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _contained(total: int, free: int) -> tuple[int, int]:
    """Host memory and what is free of it, within the limits of a container.

    Pages of files count as used there, the 43 GB of a model that was just fetched too; the system takes them back.
    """
    for limit_name, use_name, stat_name, files in _CGROUPS:
        try:
            limit, used = (int((_CONTAINER / name).read_text()) for name in (limit_name, use_name))
            held = dict(line.split() for line in (_CONTAINER / stat_name).read_text().splitlines())
        except (OSError, ValueError):
            continue  # not there, or "max"
        used -= sum(int(held.get(name, 0)) for name in files)
        return min(total, limit), max(0, min(free, limit - used))
    return total, free


def _free(folder: Path) -> int:
    """Bytes that are free where a folder is or would be."""
    return shutil.disk_usage(
        next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    ).free
