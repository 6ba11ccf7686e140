"""`python -m isofire`."""

from __future__ import annotations

import sys

from isofire.cli import main

if __name__ == "__main__":
    sys.exit(main())
