"""The one exception that means "the user can fix this".

It serves the doors of the house (the command line, the demo): they catch `UserError`, print its
one line on stderr and leave with exit code 2. It is not for mistakes of the programmer: a wrong
argument inside the package stays a ValueError with its traceback.
"""


class UserError(Exception):
    """A user's mistake, told in one line: what was given, what is wrong with it, what to do."""
