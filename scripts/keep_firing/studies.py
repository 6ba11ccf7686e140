"""Which studies are stored, and what each was to reach."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scripts.keep_firing.goals import AFTER_TRAINING, COMPENSATED, ONE_EPOCH, Goal

RESULTS = Path(__file__).parents[2] / "results"


@dataclass(frozen=True)
class Study:
    """A sweep whose cells are kept.

    Parameters
    ----------
    config
        The name of its file in configs/studies, and of its page's template here.
    folder
        Where its rows lie, below results/.
    goals
        What it was to reach.
    before
        The stored study that holds the same settings from before.
    """

    config: str
    folder: Path
    goals: tuple[Goal, ...]
    before: Path | None = None


STUDIES = (
    Study("keep-firing", RESULTS / "2026-11-28_keep-firing", AFTER_TRAINING),
    Study("one-epoch", RESULTS / "2026-11-28_one-epoch", ONE_EPOCH),
    Study("one-epoch-seeds", RESULTS / "2026-11-29_one-epoch", ONE_EPOCH),
    Study("digits-losses", RESULTS / "2026-11-28_digits-losses", ()),
    Study("steps", RESULTS / "2026-11-29_steps", ()),
    Study("nmnist", RESULTS / "2026-11-29_nmnist-seeds", ()),
    Study("membrane-methods", RESULTS / "2026-11-29_membrane-methods", ()),
    Study("csnn", RESULTS / "2026-11-29_csnn", ()),
    Study("gptq", RESULTS / "2026-11-29_gptq", COMPENSATED, RESULTS / "2026-11-28_keep-firing"),
    Study("reconstruct", RESULTS / "2026-11-29_reconstruct", COMPENSATED[:2], RESULTS / "2026-11-29_gptq"),
)
