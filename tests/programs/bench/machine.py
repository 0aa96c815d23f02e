"""What the machine is that a benchmark runs on."""

import os
import platform
from pathlib import Path

from tests.programs.bench.processes import MIB


def machine() -> dict[str, object]:
    """Return processor, cores, memory, kernel and load average."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(total / 1024 / MIB, 1),
        "kernel": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "load_average_before": round(os.getloadavg()[0], 2),
    }
