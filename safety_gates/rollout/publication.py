"""A rollout's plan as a target of the release repository: vehicles see it as part of signed metadata, or not at all.

Going back is a newer version of the metadata that names the older release. So the vehicles' protection against
rollback stays in force for everybody who cannot sign new metadata.
"""

from __future__ import annotations

from pathlib import Path

from perception.cohort import TARGET, ReleaseRef
from perception.errors import RolloutError
from safety_gates.publishing.keyring import Keyring
from safety_gates.publishing.releases import published
from safety_gates.publishing.repository import Change, change, read_state, read_target
from safety_gates.rollout.rollout import Publish


def publisher(repository: Path, keyring: Keyring) -> Publish:
    """What puts a plan into a repository; a plan that is there already is left alone."""

    def put(content: bytes) -> None:
        state = read_state(repository)
        if read_target(repository, state, TARGET) != content:
            change(repository, keyring, Change(add={TARGET: content}, expected_version=state.version))

    return put


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
