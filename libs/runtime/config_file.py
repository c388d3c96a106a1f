"""The configuration of a process: one TOML file, environment variables override it.

`BACKUPMX_SMTP__MAX_CONNECTIONS=100` is `max_connections` of `[smtp]`; lists are JSON, such as
`BACKUPMX_DIAL__ALLOW='["127.0.0.0/8"]'`. Every wrong key, type or value, in the file or in a variable, is one
clear sentence (Wrong) and the command ends with exit code 2. Relative paths are relative to the file.
"""

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from libs.runtime.config import ArcPart, Config, is_part
from libs.runtime.mistake import Wrong, found

PREFIX = "BACKUPMX_"
# Variables that are no settings. Where Kubernetes adds service links (BACKUPMX_..._PORT) to the environment,
# they must be switched off: `enableServiceLinks: false`.
OTHER_VARIABLES = frozenset({"BACKUPMX_CONFIG"})


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration in `path` with the environment over it. Raises Wrong with one sentence."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise Wrong(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Wrong(f"{path}: is not TOML: {error}") from error
    variables = {
        name: value
        for name, value in environment.items()
        if name.startswith(PREFIX) and name not in OTHER_VARIABLES
    }
    try:
        config = Config.model_validate(_merged(data, _overrides(variables)))
    except ValidationError as error:
        raise Wrong(_sentence(path, variables, error.errors(include_url=False)[0])) from error
    return _resolved(config, path)


def _resolved(config: Config, path: Path) -> Config:
    """With paths relative to the folder of `path`. Raises Wrong when the TLS files cannot be used."""
    folder = path.absolute().parent
    smtp = config.smtp
    files = {name: getattr(smtp, name) for name in ("tls_certificate", "tls_key")}
    files = {name: folder / file for name, file in files.items() if file is not None}
    for name, file in files.items():
        if not os.access(file, os.R_OK):
            raise Wrong(f"{path}: smtp.{name}: {file} cannot be read")
    if files:
        # Imported here: a command that reads no certificate starts in a third less time.
        from libs.runtime.certs import BadCertificate, server_context

        try:
            server_context(files["tls_certificate"], files["tls_key"])
        except BadCertificate as error:
            raise Wrong(f"{path}: smtp.tls_certificate: {error}") from error
    return config.model_copy(
        update={
            "state_directory": folder / config.state_directory,
            "smtp": smtp.model_copy(update=files),
            "arc": _with_key(config.arc, path, folder),
        }
    )


def _with_key(arc: ArcPart, path: Path, folder: Path) -> ArcPart:
    """Raises Wrong when the key cannot be used."""
    if arc.key is None:
        return arc
    from libs.runtime.sealing_key import BadKey, sealing_key

    file = folder / arc.key
    try:
        sealing_key(file.read_bytes())
    except OSError as error:
        raise Wrong(f"{path}: arc.key: {file} cannot be read") from error
    except BadKey as error:
        raise Wrong(f"{path}: arc.key: {file}: {error}") from error
    return arc.model_copy(update={"key": file})


def _overrides(variables: Mapping[str, str]) -> dict[str, Any]:
    """The settings that variables give, as tables. Raises Wrong for a variable that is no setting."""
    found: dict[str, Any] = {}
    for variable, text in sorted(variables.items()):
        names = variable.removeprefix(PREFIX).lower().split("__")
        annotation = _annotation(names)
        if annotation is None:
            raise Wrong(f"environment variable {variable}: there is no such setting")
        part = found
        for name in names[:-1]:
            part = part.setdefault(name, {})
        part[names[-1]] = _value(variable, text, annotation)
    return found


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with what `above` has put over it, table by table."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _merged(old or {}, value) if isinstance(value, dict) and _table(old) else value
    return merged


def _table(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _annotation(names: Iterable[str]) -> Any:
    """The type of the setting `names` (one name a level), None where there is none."""
    annotation: Any = Config
    for name in names:
        fields = annotation.model_fields if is_part(annotation) else {}
        if name not in fields:
            return None
        annotation = fields[name].annotation
    return None if is_part(annotation) else annotation


def _value(variable: str, text: str, annotation: Any) -> Any:
    """Numbers and lists are JSON, everything else is the text itself."""
    if annotation not in (int, float) and get_origin(annotation) is not tuple:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        wanted = "a number" if annotation in (int, float) else 'a list in JSON, such as ["a", "b"]'
        raise Wrong(f"environment variable {variable}: must be {wanted}, not {text!r}") from error


def _sentence(path: Path, variables: Mapping[str, str], error: ErrorDetails) -> str:
    """What pydantic found, for the person who wrote it: where (file and key, or variable), and what."""
    where = [str(part) for part in error["loc"]]
    variable = next(
        (
            name
            for length in range(len(where), 0, -1)
            if (name := PREFIX + "__".join(where[:length]).upper()) in variables
        ),
        None,
    )
    message = found(error)
    if variable is not None:
        return f"environment variable {variable}: {message}"
    return f"{path}: {'.'.join(where)}: {message}" if where else f"{path}: {message}"
