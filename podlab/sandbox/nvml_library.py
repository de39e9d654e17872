"""The simulated libnvidia-ml.so.1: compiled from nvml.c where there is a C compiler, once for each version of it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")
NAME = "libnvidia-ml.so.1"
COMPILE_S = 120.0


def compiled(cache: Path) -> Path | None:
    """The folder below `cache` that holds the library, and nothing else; None where it cannot be made."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    folder = cache / hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    if (folder / NAME).exists():
        return folder
    if compiler is None or sys.platform != "linux":
        return None
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = Path(tempfile.mkdtemp(dir=cache))
    command = [
        compiler, "-shared", "-fPIC", "-O2", f"-Wl,-soname,{NAME}", "-o", str(made / NAME), str(SOURCE), "-lpthread"
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_S)
        made.rename(folder)
    except (OSError, subprocess.SubprocessError):
        shutil.rmtree(made, ignore_errors=True)  # a compiler without its headers, or another process was faster
    return folder if (folder / NAME).exists() else None
