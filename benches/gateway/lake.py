"""An S3 server (moto) that speaks TLS, in a process of its own, for the gateway's benchmarks.

    lake.py FOLDER

Its certificate is put into FOLDER, its address printed on stdout. It ends with SIGTERM, and then prints how many readings
came in batches, from their names.
"""

import os
import signal
import sys
import threading
from pathlib import Path

PEERS = Path(__file__).parents[2] / "tests" / "peers"
sys.path[:0] = [str(PEERS / "s3"), str(PEERS)]

import boto3  # noqa: E402
from botocore.config import Config  # noqa: E402
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: E402
from upload import Quiet, certificate  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

#: The lake's bucket, made here.
BUCKET = "bench"


class Counting:
    """A server that counts readings in the names of the batches that it took."""

    def __init__(self, app):
        self.app, self.readings = app, 0

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]

        def start(status, headers, *rest):
            if environ["REQUEST_METHOD"] == "PUT" and path.endswith(".arrow") and status.startswith("200"):
                first, last = Path(path).stem.split("-")
                self.readings += int(last) - int(first) + 1
            return start_response(status, headers, *rest)

        return self.app(environ, start)


def main(folder: Path) -> None:
    application = Counting(DomainDispatcherApplication(create_backend_app))
    server = make_server(
        "127.0.0.1", 0, application, threaded=True, request_handler=Quiet, ssl_context=certificate(folder)
    )
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"https://127.0.0.1:{server.port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="AKIABENCH",
        aws_secret_access_key="secret-of-a-bench",
        region_name="us-east-1",
        verify=str(folder / "certificate.pem"),
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket=BUCKET)
    print(endpoint, flush=True)
    ended.wait()
    print(application.readings, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
