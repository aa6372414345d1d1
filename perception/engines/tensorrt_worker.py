"""The process that talks to TensorRT's builder: `python -m perception.engines.tensorrt_worker FOLDER VERB`.

A process of its own, because an interrupt must stop a build that sits in C++ for minutes, and because an assertion of
the builder ends the process it happens in. It reads and writes files in FOLDER and tells its parent what happens in
lines of JSON on standard output:

    build   model.onnx, options.json, timing.cache (may be missing) → engine.plan, timing.cache
    answer  engine.plan, feeds.npz → answers.npz
    layers  engine.plan, feeds.npz → layers.json
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from perception.engines.table import engine_class
from perception.engines.tensorrt_process import tell
from perception.errors import TollgateError


def main(folder: str, verb: str) -> int:
    """Do one verb; the exit status is 0 where its file was written."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt ends this process at once, in C++ too
    try:
        engine_class("tensorrt")  # says in one sentence which library is missing
        from perception.engines.tensorrt_jobs import VERBS

        return VERBS[verb](Path(folder))
    except TollgateError as error:
        tell(event="failed", message=str(error))
    except Exception as error:  # noqa: BLE001  (told to the parent, which raises it)
        tell(event="failed", message=f"{type(error).__name__}: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
