from __future__ import annotations

import importlib.util

import pytest

from perception.engines.table import open_engine
from perception.errors import EngineError


@pytest.mark.skipif(
    all(importlib.util.find_spec(name) for name in ("tensorrt", "pycuda")),
    reason="TensorRT and PyCUDA are installed here",
)
def test_a_plan_on_a_machine_without_its_libraries_is_refused_with_what_to_install():
    with pytest.raises(EngineError, match=r"does not load \(No module named .*pip install 'tollgate\[tensorrt\]'"):
        open_engine("tensorrt", b"no plan", threads=1)
