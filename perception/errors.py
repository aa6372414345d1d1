"""The error tree of the whole project.

Misuse by the calling program is `ValueError` or `RuntimeError`. What the world did wrong is here::

    TollgateError             root; the command line prints it as one line and exits with code 2
    ├── ProfileError          hardware profile missing, unreadable, contradicting itself
    ├── PreflightError        this machine may not run that package; `.reasons` lists all of them
    ├── ModelError            ONNX file truncated, foreign, or with a node that cannot be handled
    ├── SpecError             ModelSpec missing, unreadable, or contradicting the model
    ├── SourceError           recording or camera missing, empty, corrupt
    ├── LabelError            ground truth missing or of another recording
    ├── CalibrationError      frames that cannot calibrate
    ├── EngineError           an engine failed to open or to run
    ├── PackageError          package missing, incomplete, or not the bytes its manifest names
    ├── VerificationError     signature, digest or statement does not verify
    ├── PolicyError           gate policy empty, unknown gate, wrong unit
    ├── EvidenceError         evidence missing or bound to another package
    ├── ReleaseError          a release is refused
    ├── RolloutError          a rollout plan, drive record or decision is refused
    ├── UpdateError           the vehicle could not fetch or install; what it runs is untouched
    └── OutputError           a file or folder cannot be written

Lateness is not an error: a late, dropped or broken frame is counted, logged and published in the result.
"""

from hw_profiles.errors import PreflightError, ProfileError, TollgateError

__all__ = [
    "CalibrationError",
    "EngineError",
    "EvidenceError",
    "LabelError",
    "ModelError",
    "OutputError",
    "PackageError",
    "PolicyError",
    "PreflightError",
    "ProfileError",
    "ReleaseError",
    "RolloutError",
    "SourceError",
    "SpecError",
    "TollgateError",
    "UpdateError",
    "VerificationError",
]


class ModelError(TollgateError):
    """An ONNX file is truncated, foreign, or holds a node that cannot be handled."""


class SpecError(TollgateError):
    """A ModelSpec is missing, unreadable, or contradicts the model."""


class SourceError(TollgateError):
    """A recording or camera is missing, empty or corrupt."""


class LabelError(TollgateError):
    """Ground truth is missing or belongs to another recording."""


class CalibrationError(TollgateError):
    """The frames given cannot calibrate a quantization."""


class EngineError(TollgateError):
    """An engine failed to open or to run."""


class PackageError(TollgateError):
    """An engine package is missing, incomplete, or not the bytes its manifest names."""


class VerificationError(TollgateError):
    """A signature, digest or statement does not verify."""


class PolicyError(TollgateError):
    """A gate policy is empty, names an unknown gate, or has a limit of a wrong unit."""


class EvidenceError(TollgateError):
    """Evidence is missing, damaged, or bound to another package."""


class ReleaseError(TollgateError):
    """A release is refused."""


class RolloutError(TollgateError):
    """A rollout plan, drive record or decision is refused."""


class UpdateError(TollgateError):
    """A vehicle could not fetch or install a release; what it runs is untouched."""


class OutputError(TollgateError):
    """A file or folder cannot be written."""
