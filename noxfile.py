"""`nox`: the tests under every Python that isofire supports; needs nox and those interpreters.

`make test` does the same under one of them.
"""

import os

import nox

PYTHONS = ("3.11", "3.12", "3.13")
TORCH = os.environ.get("TORCH", "torch==2.13.0")

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Install the package as a wheel would be, compile its kernels, run its tests; arguments go to pytest."""
    # torch is installed first and held, so that nothing pulls another (much larger) build
    session.install(TORCH)
    session.install("--constraint", "constraints.txt", ".[test]")
    session.run("python", "-m", "pytest", *(session.posargs or ("-n", "auto")))
