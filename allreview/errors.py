"""The one exception that people read.

Everything a user can cause raises `UserError` with one sentence that says what was wrong and what
to do. Pages show that sentence, the command line prints it to stderr and exits with 2.
"""


class UserError(ValueError):
    """Bad input, or a state of the world the user can mend. The message is shown as it is."""
