"""A Postfix's own postconf reads a main.cf as `domain apply --from-postfix` does."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from services.control.postfix import parameters, value

CASES = Path(__file__).parent.parent / "control/cases/postfix"
READ = [path for path in sorted(CASES.glob("*.case")) if "\nwrong: " not in path.read_text("utf-8")]


@pytest.mark.parametrize("path", READ, ids=lambda path: path.stem)
def test_the_same_values(tmp_path: Path, unpacked: Callable[[str], Path], path: Path) -> None:
    """Continuation lines, references and conditions."""
    packages = unpacked("postfix")
    main_cf = re.split(r"^--- .+\n|^===\n", path.read_text("utf-8"), flags=re.MULTILINE)[1]
    (tmp_path / "main.cf").write_text(main_cf)
    (tmp_path / "master.cf").write_text("")
    for name in ("relay_domains", "transport_maps"):
        said = subprocess.run(
            [packages / "usr/sbin/postconf", "-c", tmp_path, "-x", "-h", name],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": f"{packages}/usr/lib/postfix:{packages}/usr/lib/x86_64-linux-gnu",
            },
            capture_output=True,
            text=True,
            check=True,
        )
        ours = value(parameters(main_cf) | {"config_directory": str(tmp_path)}, name)
        assert ours.split() == said.stdout.split()
