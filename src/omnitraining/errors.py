"""The error a user can mend, in one line that says how; and what is worth a warning."""


class InputError(ValueError):
    """Wrong input. The command line prints its message as one line and exits with code 2."""


class CalibrationWarning(UserWarning):
    """A learner was fitted on images that are unlike those its calibration was measured on."""


def described(error: BaseException) -> str:
    """An error of other code in one line: its type, and the first line of what it says."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
