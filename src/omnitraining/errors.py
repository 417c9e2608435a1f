"""The error a user can mend: one line that names what was wrong and what is allowed."""


class InputError(ValueError):
    """Wrong input. The command line prints its message as one line and exits with code 2."""
