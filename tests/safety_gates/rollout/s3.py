"""A real S3 server on loopback, that counts what it is asked and can go away."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

KEY = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


class Server:
    """Its address and its requests by kind.

    Attributes:
        answers: how many downloads it still answers; None is all.
        page: most names in one answer; None is S3's own thousand.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.asked: Counter[str] = Counter()
        self.answers: int | None = None
        self.page: int | None = None
        self.environment = {**KEY, "AWS_ENDPOINT_URL": self.url}
        self.client = boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """One request; a server that is gone closes the connection."""
        kind = "list" if "list-type" in environ["QUERY_STRING"] else environ["REQUEST_METHOD"]
        if kind == "list" and self.page is not None:
            environ["QUERY_STRING"] += f"&max-keys={self.page}"
        if kind == "GET" and self.answers is not None:
            self.answers -= 1
            if self.answers < 0:
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                raise ConnectionResetError
        self.asked[kind] += 1
        return self._app(environ, start_response)  # type: ignore[no-any-return]

    def put(self, folder: Path, bucket: str, prefix: str) -> None:
        """Every file of a folder."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        with ThreadPoolExecutor(8) as pool:
            list(
                pool.map(
                    lambda path: self.client.put_object(
                        Bucket=bucket, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes()
                    ),
                    files,
                )
            )

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Serve while the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


class _Quiet(MotoRequestHandler):  # type: ignore[misc]
    def log_request(self, *_: object) -> None:
        pass

    def log(self, *_: object) -> None:
        pass
