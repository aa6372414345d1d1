"""The drive of the small worlds is that of the gates' other tests."""

from tests.safety_gates.conftest import labelled_drive

__all__ = ["labelled_drive"]
