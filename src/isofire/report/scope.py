"""What of the networks was quantized, and what stays in full precision: for the page and for a paper."""

from __future__ import annotations

from collections.abc import Iterable

from isofire.report.study import Study


def scope(study: Study, names: bool = True) -> list[str]:
    """A sentence for weights and one for rules, of all settings of a sweep; none where no weights are quantized.

    Parameters
    ----------
    names
        Whether to name the layers that are quantized.
    """
    specs = [(row, spec) for row in study.rows if (spec := study.spec(row))]
    weighted = [(row, spec) for row, spec in specs if spec.get("weights")]
    said = []
    for first, last in dict.fromkeys((s.get("first_layer"), s.get("last_layer")) for _, s in weighted):
        found = [(row, s) for row, s in weighted if (s.get("first_layer"), s.get("last_layer")) == (first, last)]
        row, _ = next(((r, s) for r, s in found if not s.get("rules")), found[0])
        known = study.view.distributions(str(row["cell"])) if names else []
        layers = [str(item["module"]) for item in known if item["target"] == "weights"]
        kept = [word for word, policy in (("first", first), ("last", last)) if policy == "float"]
        what = f"Weights of {_some(layers)} are quantized" if layers else "Weights are quantized"
        if kept:
            stay = "stay" if len(kept) > 1 else "stays"
            said.append(f"{what}; the {' and the '.join(kept)} layer with weights {stay} in full precision (32 bits).")
        else:
            said.append(f"{what}, the first and the last layer among them.")
    if any(spec.get("rules") for _, spec in specs):
        said.append("Some settings have rules of their own for some layers: see their specs.")
    return said


def listed(words: Iterable[object]) -> str:
    """Words as a sentence has them.

    Examples
    --------
    >>> listed([2, 4, 8]), listed(["a"])
    ('2, 4 and 8', 'a')
    """
    found = [str(word) for word in words]
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


_SHOWN = 6


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return listed(names) if more <= 1 else f"{', '.join(names[:_SHOWN])} and {more} more layers"
