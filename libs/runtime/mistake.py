"""A mistake in the configuration: what pydantic found, for the person who wrote it."""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from libs.runtime.config import Config, Endpoint, is_part


class Wrong(Exception):  # noqa: N818
    """The configuration cannot be used; the message is one sentence for the person who wrote it."""


def found(error: ErrorDetails) -> str:
    """What is wrong with a setting, without the place where it is set."""
    given = error["input"]
    given = str(given).lower() if isinstance(given, bool) else repr(given)  # as TOML writes it
    match error["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return f"is no setting; known here are {', '.join(_known(error['loc'][:-1]))}"
        case "model_type" | "model_attributes_type":
            return f"must be a table of settings, not {given}"
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case "tuple_type":
            return f"must be a list, not {given}"
        case "too_short":
            return "must not be empty"
        case "int_type" | "int_parsing" | "int_from_float":
            return f"must be a whole number, not {given}"
        case "float_type" | "float_parsing":
            return f"must be a number, not {given}"
        case "string_type" | "path_type":
            return f"must be text, not {given}"
        case _:
            message = error["msg"]
            return f"{message[:1].lower()}{message[1:]}".replace("input should", "must") + f", not {given}"


def _known(table: Sequence[int | str]) -> Iterable[str]:
    """The names that may stand in `table`."""
    part: Any = Config
    for name in table:
        part = part.model_fields[name].annotation if is_part(part) else part
    return (part if is_part(part) else Endpoint).model_fields
