"""What a release is in a repository: an index that names its files, how it is tried, and when a vehicle keeps it.

The targets of a repository, all signed through TUF's targets role::

    signers.json                  whose signature under a statement counts
    current.json                  profile → release, for fleets without a rollout
    rollouts/PROFILE.json         the plan of the profile's rollout, where there is one
    releases/NAME/index.json      this file's `ReleaseIndex`
    releases/NAME/…               the release's files and the smoke run's frames
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from securesystemslib.signer import SSlibKey

from hw_profiles.yaml_files import complaints_of
from perception.errors import VerificationError
from perception.release_client import Sha256
from perception.telemetry_record import Reference

INDEX, SMOKE, RELEASE = "index.json", "smoke.npz", "release"
SIGNERS, CURRENT = "signers.json", "current.json"
MOST_DOCUMENT_BYTES = 1 << 20

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IndexedFile(_Strict):
    """One file of the release; its path is relative to the release's folder."""

    path: str = Field(pattern=r"^(package/)?[A-Za-z0-9_][A-Za-z0-9._-]*$")
    sha256: Sha256
    bytes: int = Field(ge=0)


class Tolerance(_Strict):
    """How far a vehicle's outputs may be from the recorded ones, and how long they may take.

    Attributes:
        relative_error: of every output tensor over all frames: root mean square of the difference over that of the
            recorded tensor.
        disagreement: share of the objects, or of the mask's cells, that only one of both reports.
        latency_p90_ms: nine frames in ten come within it, from pixels to result.
    """

    relative_error: float = Field(ge=0, allow_inf_nan=False)
    disagreement: Share
    latency_p90_ms: float = Field(gt=0, allow_inf_nan=False)


class CommitRule(_Strict):
    """When a vehicle keeps a release that it tries.

    Attributes:
        frames: after so many frames it is judged.
        max_late: share of them that may come late or be skipped.
        max_boots: so many boots may pass without one drive that ended well.
    """

    frames: int = Field(ge=1, default=1000)
    max_late: Share = 0.05
    max_boots: int = Field(ge=1, default=3)


class OnDeviceBuild(_Strict):
    """The package carries a portable model; the vehicle makes the engine it runs."""

    kind: str
    options: dict[str, Any] = Field(default_factory=dict)


class ReleaseIndex(_Strict):
    """Everything a vehicle must know before it downloads a release, and what it holds its drives against later."""

    format: Literal["tollgate-release/1"] = "tollgate-release/1"
    name: Name
    profile: str
    package_sha256: Sha256
    files: tuple[IndexedFile, ...]
    smoke: IndexedFile
    tolerance: Tolerance
    commit: CommitRule
    build: OnDeviceBuild | None = None
    reference: Reference | None = None


class Signers(_Strict):
    """Whose signature under a release's statement counts."""

    format: Literal["tollgate-signers/1"] = "tollgate-signers/1"
    keys: dict[str, dict[str, Any]]

    def public_keys(self) -> dict[str, SSlibKey]:
        """Key id → key."""
        return {key_id: SSlibKey.from_dict(key_id, dict(fields)) for key_id, fields in self.keys.items()}


class Current(_Strict):
    """Which release the vehicles of each profile shall run, where no rollout decides."""

    format: Literal["tollgate-current/1"] = "tollgate-current/1"
    releases: dict[str, Name] = Field(default_factory=dict)


def target_name(release: str, path: str) -> str:
    """How the repository names a file of a release."""
    return f"releases/{release}/{path}"


def rollout_name(profile: str) -> str:
    """How the repository names the plan of a profile's rollout: each profile has its own."""
    return f"rollouts/{profile}.json"


def parse_document(model: type[Model], content: bytes, *, where: str) -> Model:
    """Read one of this module's documents.

    Raises:
        VerificationError: it is none, in one line.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise VerificationError(
            f"{where}: {complaints_of(error)}; publish the release again, or install the release of Tollgate that did"
        ) from error
