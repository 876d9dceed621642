"""The exception for a mistake that the user can fix.

The command line and the demo catch `UserError`, print its one line on stderr and exit with code 2. It is not for
mistakes of the programmer: a wrong argument inside the package raises ValueError with its traceback.
"""


class UserError(Exception):
    """A user's mistake. The message is one line: what was given, what is wrong with it, what to do."""
