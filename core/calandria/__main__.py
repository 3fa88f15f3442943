"""`python -m calandria` is the command `calandria`."""

from __future__ import annotations

import sys

from calandria.cli import main

if __name__ == "__main__":
    sys.exit(main())
