"""The one error that a reader's input can cause, and how its words are shown."""


class PacxError(ValueError):
    """Bad input. The message says what is wrong, where (file, row, column) and what to do."""


def printable(text: str) -> str:
    """Text on one line, with escapes for what would command a terminal or turn its direction."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
