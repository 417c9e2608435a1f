"""The error a user can mend: one line that names what was wrong and what is allowed."""


class InputError(ValueError):
    """Wrong input. The command line prints its message as one line and exits with code 2."""


def described(error: BaseException) -> str:
    """An error of other code in one line: its type, and the first line of what it says."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
