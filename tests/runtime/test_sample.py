"""The configuration that a newcomer gets."""

import re
import tomllib
from pathlib import Path
from typing import Any

from libs.runtime.config import Config, is_part
from libs.runtime.config_file import load
from libs.runtime.sample import sample

TEXT = sample(id="0f3a9c1e5b7d", listen="127.0.0.1:2525", health="127.0.0.1:9125")


def settings(part: Any, above: str = "") -> set[str]:
    """Every setting, dotted."""
    found: set[str] = set()
    for name, field in part.model_fields.items():
        annotation = field.annotation
        found |= settings(annotation, f"{above}{name}.") if is_part(annotation) else {above + name}
    return found


def uncommented() -> dict[str, Any]:
    """The sample with every commented setting switched on."""
    return tomllib.loads(re.sub(r"(?m)^# (\w+ = )", r"\1", TEXT))


def test_it_loads(tmp_path: Path) -> None:
    """As it is written it can be used."""
    path = tmp_path / "backupmx.toml"
    path.write_text(TEXT)
    config = load(path, {})
    assert config.installation.activation == "trusted"
    assert [str(at) for at in config.smtp.listen] == ["127.0.0.1:2525"]


def test_it_explains_every_setting() -> None:
    """A setting that is not in the sample is a setting nobody finds."""
    tables = uncommented()
    named = {f"{table}.{name}" for table, of in tables.items() if isinstance(of, dict) for name in of}
    named |= {name for name, of in tables.items() if not isinstance(of, dict)}
    assert named == settings(Config)


def test_the_defaults_it_shows_are_true(tmp_path: Path) -> None:
    """What stands in a comment as the default is the default."""
    path = tmp_path / "backupmx.toml"
    path.write_text(TEXT)
    with_defaults = load(path, {})
    shown = uncommented()
    del shown["smtp"]["tls_certificate"], shown["smtp"]["tls_key"]
    del shown["dial"]["authorities"]
    for name in ("domain", "selector", "key"):
        del shown["arc"][name]
    shown["state_directory"] = str(with_defaults.state_directory)
    assert Config.model_validate(shown) == with_defaults
