"""Errors with a message for users, and warnings."""


class InputError(ValueError):
    """Wrong input; the message names it and the way out in one line.

    The command line prints the message and exits with code 2.
    """


class CalibrationWarning(UserWarning):
    """A learner is fitted on images that differ from the images of its calibration."""


def described(error: BaseException) -> str:
    """An error of other code in one line: its type and the first line of its message."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
