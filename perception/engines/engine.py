"""The protocol every inference engine follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[np.generic]]
Wait: TypeAlias = Literal["spin", "blocking", "auto"]
"""How a call waits, for an accelerator or for threads of its own: `spin` keeps cores busy and is the most even,
`blocking` lets them sleep, `auto` spins where this process may use more than one core.
"""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, shape and NumPy dtype name of one input or output. -1 stands for a dimension known only at run time."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of `shape` fits."""
        return len(shape) == len(self.shape) and all(
            mine in (-1, other) for mine, other in zip(self.shape, shape, strict=True)
        )


class Engine(Protocol):
    """Runs one network. Opened by its constructor, closed once; not thread-safe: one thread at a time."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What must be fed."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What comes back."""

    def infer(self, feeds: Tensors) -> Tensors:
        """Run the network once.

        Args:
            feeds: every input by name, C-contiguous, of exactly the shape and dtype in `inputs`.

        Returns:
            Every output by name. The arrays belong to the engine and hold until the next `infer` or `close`.

        Raises:
            EngineError: the engine failed.
        """

    def close(self) -> None:
        """Give everything back. A second call does nothing."""
