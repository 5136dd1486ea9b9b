"""The errors users see."""


class HeddleError(RuntimeError):
    """Anything Heddle refuses: the message says what, where and what to do."""


class CaptureError(HeddleError):
    """The step cannot be recorded as it is."""


class CompileError(HeddleError):
    """A pass refused the program."""


class GuardError(HeddleError):
    """A batch gives Python other values than those that a plan was compiled for."""


class HeddleWarning(UserWarning):
    """Something asked for has no effect; the message names it and says why."""
