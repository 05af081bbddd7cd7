"""The one error that a reader's input can cause."""


class PacxError(ValueError):
    """Bad input. The message says what is wrong, where (file, row, column) and what to do."""


class NoDataError(PacxError):
    """A run has no data for one of its stages; the others can go on."""


class DiskFullError(PacxError):
    """What was begun does not fit on its disk; it goes on when there is room."""
