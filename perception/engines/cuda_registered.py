"""Memory of somebody else's, page-locked where it lies: the GPU takes frames from it, and the host copies none."""

from __future__ import annotations

from typing import Any, ClassVar

from perception.engines.cuda_device import CudaDevice
from perception.engines.cuda_faults import fault_of
from perception.engines.lending import Pixels
from perception.errors import EngineError

try:
    from cuda.bindings import driver  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    driver = None

_DEVICEMAP = 2  # CU_MEMHOSTREGISTER_DEVICEMAP


class Registered:
    """Memory that is page-locked from the first `of` to the last `close`; several engines of a process may share it.

    The memory stays its owner's, and is mapped at least as long.
    """

    _known: ClassVar[dict[int, Registered]] = {}

    def __init__(self, memory: Pixels, device: CudaDevice) -> None:
        """Lock it; see `of`."""
        self.memory, self._device, self._users = memory, device, 0
        self._host_address = int(memory.ctypes.data)
        with device.current("locking shared memory"):
            _require(driver.cuMemHostRegister(self._host_address, memory.nbytes, _DEVICEMAP))
            self._address = int(_require(driver.cuMemHostGetDevicePointer(self._host_address, 0)))

    @classmethod
    def of(cls, memory: Pixels, device: CudaDevice) -> Registered:
        """Lock it, or share the lock of whoever did.

        Args:
            memory: uint8, C-contiguous, from the start of a page on, in a mapping that may be written.
            device: whose GPU reaches it.

        Raises:
            EngineError: the driver refuses, or `cuda.bindings` is missing.
        """
        if driver is None:
            raise EngineError("cuda.bindings is not installed; run: pip install 'tollgate[tensorrt]'")
        found = cls._known.get(int(memory.ctypes.data)) or cls(memory, device)
        cls._known[found._host_address] = found
        found._users += 1
        return found

    def address_of(self, host_address: int) -> int:
        """The GPU's address of a byte of it."""
        return self._address + host_address - self._host_address

    def close(self) -> None:
        """One user less; the last one unlocks it."""
        self._users -= 1
        if self._users == 0:
            del self._known[self._host_address]
            with self._device.current("unlocking shared memory"):
                driver.cuMemHostUnregister(self._host_address)


def _require(answer: tuple[Any, ...]) -> Any:  # noqa: ANN401  (cuda.bindings is untyped)
    if answer[0]:
        raise fault_of(str(getattr(answer[0], "name", answer[0])), doing="locking shared memory")
    return answer[-1]
