"""What is imported only when it is wanted: where it lies, and the extra that brings its libraries."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from perception.errors import TollgateError


@dataclass(frozen=True, slots=True)
class Kind:
    """A class in a module, and the extra that brings the libraries for it."""

    module: str
    name: str
    extra: str | None = None

    def load(self, purpose: str, error: type[TollgateError]) -> Any:  # noqa: ANN401  (constructors differ by kind)
        """The class.

        Args:
            purpose: what its libraries are expected for.
            error: raised where they are not installed.

        Raises:
            TollgateError: `error`, with what to install.
        """
        try:
            return getattr(import_module(self.module), self.name)
        except ModuleNotFoundError as missing:
            raise error(
                f"{missing.name} is not installed, expected it for {purpose}; run: pip install 'tollgate[{self.extra}]'"
            ) from missing
