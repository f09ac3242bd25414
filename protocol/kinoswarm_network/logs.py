"""Structured logs of a service: JSON lines in a rotating file. Owns their form; nothing secret is passed in."""

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog

_BYTES_PER_FILE = 8 * 1024 * 1024
_FILES = 4


def log_to(path: Path) -> None:
    """Send structlog's events, and warnings of libraries, to `path`."""
    handler = RotatingFileHandler(path, maxBytes=_BYTES_PER_FILE, backupCount=_FILES)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("kinoswarm")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=lambda *names: logger,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
