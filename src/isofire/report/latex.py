"""Text that LaTeX sets as it is, in any font encoding."""

from __future__ import annotations

_SYMBOLS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    # characters that OT1, LaTeX's own encoding, has others in the place of
    "|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}", '"': "''",
    "−": "$-$", "×": r"$\times$", "±": r"$\pm$", "÷": r"$\div$", "✓": r"$\checkmark$", "✗": r"$\times$", "–": "--",
    "—": "---", "µ": r"$\mu$", "μ": r"$\mu$", "∞": r"$\infty$", "†": r"$\dagger$", "→": r"$\rightarrow$",
    "≤": r"$\leq$", "≥": r"$\geq$", "²": "$^2$", "³": "$^3$", "·": r"$\cdot$", "…": r"\dots{}", "\u2019": "'",
    "“": "``", "”": "''", "\u00a0": "~",
}  # fmt: skip


def escaped(text: str) -> str:
    r"""Text that LaTeX sets as it is.

    Examples
    --------
    >>> escaped("50 % of a_b | µJ")
    '50~\\% of a\\_b \\textbar{} $\\mu$J'
    """
    # a number and its sign of percent stay on one line
    text = text.replace(" %", "\u00a0%")
    return "".join(_SYMBOLS.get(character, character) for character in text)
