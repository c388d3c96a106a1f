"""The facts of the machine and of the programs that the figures depend on."""

import os
import platform
import re
import sqlite3
import subprocess
import time
import tomllib
from pathlib import Path
from statistics import median

import psutil

ROOT = Path(__file__).parent.parent


def facts() -> dict[str, str | int | float]:
    """As they are now; `load` is the load average of the last minute, others' work included. `speed`: CPU ms
    that a small piece of work takes, always the same one: twice as many, and all CPU figures are twice as
    high."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "memory_mib": psutil.virtual_memory().total // 2**20,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "kafka": _kafka(),
        "revision": _revision(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "load": round(os.getloadavg()[0], 1),
        "speed": round(_speed(), 2),
    }


def _speed() -> float:
    """Median ms of process time, of what a service does as well: objects, dicts, text and octets."""
    took = []
    for _ in range(51):
        began = time.process_time_ns()
        table = {f"{number}@office.example": number.to_bytes(4) for number in range(5000)}
        line = b"\r\n".join(key.encode() + value for key, value in table.items())
        assert line.count(b"@") >= len(table)
        took.append((time.process_time_ns() - began) / 1e6)
    return median(took)


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _kafka() -> str:
    lock = tomllib.loads((ROOT / "deploy/kafka/jgo.lock.toml").read_text("utf-8"))
    versions = (jar["version"] for jar in lock["dependencies"] if jar["artifactId"] == "kafka-clients")
    return str(next(versions, "unknown"))


def _revision() -> str:
    """The commit, with a plus sign where the tree differs from it in more than the results."""
    git = ["git", "-C", str(ROOT)]
    said = subprocess.run(
        [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    if said.returncode:
        return "unknown"
    tree = [*git, "diff", "--quiet", "HEAD", "--", ".", ":!bench/results.json"]
    changed = subprocess.run(tree, check=False).returncode != 0
    return said.stdout.strip() + ("+" if changed else "")
