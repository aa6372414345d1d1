"""A rollout's plan as a target of the release repository: vehicles see it as part of signed metadata, or not at all.

Going back is a newer version of the metadata that names the older release. So the vehicles' protection against
rollback stays in force for everybody who cannot sign new metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perception.cohort import TARGET, ReleaseRef
from perception.errors import RolloutError
from safety_gates.publishing.keyring import Keyring
from safety_gates.publishing.releases import published, release_names
from safety_gates.publishing.repository import Change, change, read_state, read_target
from safety_gates.rollout.rollout import Publish
from safety_gates.rollout.stages import RolloutFile

DRIFTS = ("input_drift", "output_drift")


def publisher(repository: Path, keyring: Keyring) -> Publish:
    """What puts a plan into a repository; a plan that is there already is left alone."""

    def put(content: bytes) -> None:
        state = read_state(repository)
        if read_target(repository, state, TARGET) != content:
            change(repository, keyring, Change(add={TARGET: content}, expected_version=state.version))

    return put


def refuse_unmeasured_drift(repository: Path, releases: Sequence[ReleaseRef], stages: RolloutFile) -> None:
    """Refuse stages that watch drift for releases whose drives cannot tell it: they would hold for ever.

    Raises:
        RolloutError: a release of the repository has no reference, and the stages watch drift.
    """
    watched = [each.quantity for each in stages.criteria if each.quantity in DRIFTS]
    state = read_state(repository)
    for release in releases if watched else ():
        if release.name in release_names(state) and published(repository, state, release.name).reference is None:
            raise RolloutError(
                f"release {release.name}: was published without a reference, and the stages watch "
                f"{' and '.join(watched)}, which would never be known; judge, sign and publish it anew with a "
                "longer --frames-of, or leave these criteria out of --stages"
            )


def published_release(repository: Path, name: str) -> ReleaseRef:
    """A release of the repository, by its name.

    Raises:
        ReleaseError: there is none of that name.
        RolloutError: the name is too strange for a plan.
    """
    index = published(repository, read_state(repository), name)
    try:
        return ReleaseRef(name=index.name, sha256=index.package_sha256)
    except ValueError as error:
        raise RolloutError(f"release {name!r}: cannot stand in a plan; publish it under a plainer name") from error
