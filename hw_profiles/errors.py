"""The root of the error tree. The whole tree is drawn in `perception.errors`."""


class TollgateError(Exception):
    """The world's fault, in one sentence: what, got X, expected Y (unit), where, and what to do."""


class ProfileError(TollgateError):
    """A hardware profile is missing, unreadable or contradicts itself."""


class PreflightError(TollgateError):
    """This machine may not run that package. Carries every reason, not only the first."""

    def __init__(self, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons
