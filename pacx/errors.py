"""The one error that a reader's input can cause."""


class PacxError(ValueError):
    """Bad input. The message says what is wrong, where (file, row, column) and what to do."""


class DiskFullError(PacxError):
    """What was begun does not fit on its disk; it goes on when there is room."""
