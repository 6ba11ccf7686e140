"""Search for counterexamples to the property tests with fresh seeds, round after round, until the time is over.

`make test` runs every property on the same examples each time, so that its verdict depends on the code alone. This
command draws new ones. A find ends it with status 1: hypothesis prints the smallest failing arguments and keeps them in
`.hypothesis`, where the next search tries them first. Add them to the test with `@example(...)`, then mend the code.

    python scripts/search.py --minutes 60 [paths and options of pytest]
"""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTHING_COLLECTED = 5


def search_once(seed: int, options: list[str]) -> int:
    """The status of one run of all property tests with this seed."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "hypothesis", "-p", "no:cacheprovider"]
    command += ["--hypothesis-profile=search", f"--hypothesis-seed={seed}", *options]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main() -> int:
    """Rounds until the time is over or one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="no new round is begun after this time")
    given, options = parser.parse_known_args()
    end, rounds = time.monotonic() + 60.0 * given.minutes, 0
    while rounds == 0 or time.monotonic() < end:
        seed = secrets.randbelow(1 << 32)
        status = search_once(seed, options)
        if status == NOTHING_COLLECTED:
            print("no property test matches; give folders or files of tests", file=sys.stderr)
            return status
        if status:
            print(f"round {rounds + 1} found a counterexample with --hypothesis-seed={seed}", file=sys.stderr)
            return 1
        rounds += 1
    print(f"{rounds} rounds, no counterexample")
    return 0


if __name__ == "__main__":
    sys.exit(main())
