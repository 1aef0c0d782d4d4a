"""The one exception that means "the user can fix this"."""


class HadError(ValueError):
    """Bad input: the message names the key or file, the value found, and the way out.

    The command line prints the message alone and exits with status 2; everything else that is
    raised is a defect and keeps its traceback.
    """
