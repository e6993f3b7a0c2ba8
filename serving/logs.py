"""How the server logs: lines for people, or one JSON object a line for machines."""

from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS

_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_FIELDS = ["asctime", "levelname", "name", "message"]


def log_config(level: str, form: str) -> dict[str, Any]:
    """Returns the configuration of the standard library's logging.

    Args:
        level: The lowest level that is logged.
        form: `text` or `json`. In JSON whatever a record carries is a member: request id, model, version, ...
    """
    named = {"handlers": ["stderr"], "level": level.upper(), "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "text": {"format": _LINE},
            "json": {
                "()": "pythonjsonlogger.json.JsonFormatter",
                "fmt": _FIELDS,
                "reserved_attrs": [*RESERVED_ATTRS, "color_message"],  # uvicorn's second text, for terminals
                "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
                "datefmt": "%Y-%m-%dT%H:%M:%S%z",
            },
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": form}},
        "loggers": {"uvicorn": named, "uvicorn.error": {"level": level.upper()}, "serving": named},
    }


def on_one_line(text: str) -> str:
    """Returns a text as it may stand in a line of the log, with escapes for what cannot be printed."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
