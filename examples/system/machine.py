"""The machine that a number was measured on."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


def machine(device: torch.device) -> dict[str, Any]:
    """Names and versions to record with every number."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        model = next((line.split(": ")[1] for line in info.read_text().splitlines() if "model name" in line), model)
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU ({model})",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def pick_device(name: str) -> torch.device:
    """The named device; ``auto`` is the first GPU if there is one, else the CPU.

    Raises:
        SystemExit: if this machine has no such device.
    """
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "xpu": torch.xpu.device_count()}
    there["mps"] = int(torch.backends.mps.is_available())
    with suppress(RuntimeError):  # torch does not know the name
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        if (device.index or 0) < there.get(device.type, 0):
            return device
    raise SystemExit(f"train.device must be auto or a device of this machine, got {name}")
