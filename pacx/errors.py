"""The one error that a reader's input can cause, and how its words are shown."""


class PacxError(ValueError):
    """Bad input. The message says what is wrong, where (file, row, column) and what to do."""

    def __init__(self, message: str) -> None:
        # A file's name may hold bytes that are not UTF-8, which cannot be printed.
        super().__init__(message.encode(errors="backslashreplace").decode())


class NoDataError(PacxError):
    """A run has no data for one of its stages; the others can go on."""


class DiskFullError(PacxError):
    """What was begun does not fit on its disk; it goes on when there is room."""


def printable(text: str) -> str:
    """Text on one line, with escapes for what would command a terminal or turn its direction."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
