"""The figures: printed as they come, kept with the facts of the machine beside each."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def percentiles(seconds: Iterable[float]) -> dict[str, float]:
    """`p50` and `p99`, in ms."""
    took = sorted(seconds)
    return {"p50": took[len(took) // 2] * 1000, "p99": took[len(took) * 99 // 100] * 1000}


class Figures:
    """`add` prints `name value unit`. `most`: the target, where there is one."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts
        self._rows: list[dict[str, Any]] = []

    def add(self, name: str, value: float, unit: str, *, most: float | None = None, note: str = "") -> None:
        value = round(value, 4 if value < 1 else 2 if value < 100 else 0)
        value = int(value) if value >= 100 else value
        print(f"{name} {value} {unit}", flush=True)
        row: dict[str, Any] = {"name": name, "value": value, "unit": unit}
        if most is not None:
            row |= {"at_most": most}
        if note:
            row |= {"note": note}
        self._rows.append(row | {"machine": dict(self._facts)})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self._rows, indent=1) + "\n", "utf-8")

    def missed(self) -> list[str]:
        """A sentence for each target that was missed."""
        return [
            f"{row['name']} is {row['value']} {row['unit']}, at most {row['at_most']} is wanted"
            for row in self._rows
            if "at_most" in row and row["value"] > row["at_most"]
        ]
