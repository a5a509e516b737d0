"""The one exception that means: the input is at fault, not the program."""


class InputError(Exception):
    """Something that came from outside cannot be used.

    The message is one line. It says what is wrong and, where there is something to do about it, what
    to do. The command line prints it on stderr and exits with 2; it never shows a traceback for it.
    """
