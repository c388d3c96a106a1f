"""Log lines of the process itself: one JSON object a line on standard output, escaped, never with a secret.

What happens to a mail is an event (events.py), not a log line. Use: `structlog.get_logger().warning("short
sentence", key=value)`; with `exc_info=True` inside an except block for our own bugs.
"""

import logging
import sys

import structlog


def configure(service: str, host: str) -> None:
    """Once a process, before anything is logged. Lines of libraries (logging) come out in the same form."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="log_time"),
        # Without the frames' variables: they hold mail.
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ),
    ]
    structlog.contextvars.bind_contextvars(service=service, host=host)
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(sort_keys=True)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(sort_keys=True),
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
