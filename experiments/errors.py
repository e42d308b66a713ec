"""The one exception that a user is meant to see."""

__all__ = ["UserError"]


class UserError(Exception):
    """Bad input: one line that names the value and what was expected. Command lines print it and exit with 2."""
