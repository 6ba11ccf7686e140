"""What a process of isofire's own does first: the command line's, and workers of a sweep; never one of the user's."""

from __future__ import annotations

import logging

from isofire.allocator import keep_freed_memory


def begin() -> None:
    """Keep freed memory, and do without torch's notice that there is no Triton, which nothing here needs on a CPU."""
    keep_freed_memory()
    logging.getLogger("torch._library.triton").addFilter(_is_no_notice)


def _is_no_notice(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Triton not available")
