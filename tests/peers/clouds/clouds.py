"""Stores that are not ours, held against the rules of `readings/tests/stores.rs`.

S3: moto, in this process. Azure: Azurite, a process of its own with an account and a key made for this run. Each gets a bucket
and a prefix, and the test `the_store_of_the_environment_conforms` is run with the lake's URL in TJERN_STORE.
At last the same test is run over a server that forgets its conditions, and has to fail.

Exit status 0 where every store that could be had keeps every rule.
"""

import argparse
import base64
import datetime
import hashlib
import hmac
import os
import secrets
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from skipped import skip, summary

TEST = "the_store_of_the_environment_conforms"
START_PATIENCE_S = 60
ACCOUNT, CONTAINER, BUCKET = "tjernpeer", "lakes", "lakes"
KEY_ID, SECRET = "AKIAPEER", "secret-of-a-peer"
API_VERSION = "2021-12-02"


class Failure(Exception):
    """Something did not hold."""


class Quiet(WSGIRequestHandler):
    """Says nothing of each request."""

    def log(self, *_) -> None:
        pass


class Careless:
    """A server that overlooks the conditions of puts."""

    def __init__(self, app):
        self.app, self.is_on = app, False

    def __call__(self, environ, start_response):
        if self.is_on:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        return self.app(environ, start_response)


def say(text: str) -> None:
    print(f"clouds: {text}", flush=True)


def judge(name: str, lake: str, variables: dict[str, str]) -> str:
    """Runs the test over a lake; returns what it printed of it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "AZURE_", "GOOGLE_"))}
    environment |= variables | {"TJERN_STORE": lake, "RUST_BACKTRACE": "0"}
    began = time.monotonic()
    command = ["cargo", "test", "--quiet", "--locked", "--workspace", "--test", "stores", "--", "--exact", TEST, "--nocapture"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"{name}:\n{done.stdout}{done.stderr}")
    told = next((line for line in done.stdout.splitlines() if line.startswith(lake)), None)
    if told is None:
        raise Failure(f"{name}: the test did not look at {lake}:\n{done.stdout}")
    return f"{name} keeps every rule, in {time.monotonic() - began:.1f} s: {told.partition(': ')[2]}"


def of_s3() -> None:
    careless = Careless(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, careless, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        config=Config(retries={"max_attempts": 1}, proxies={}),
    )
    client.create_bucket(Bucket=BUCKET)
    variables = {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    say(judge("S3 (moto)", f"s3://{BUCKET}/a/lake", variables))
    careless.is_on = True
    try:
        judge("S3 (moto)", f"s3://{BUCKET}/careless", variables)
    except Failure as failure:
        if "who created one object" not in str(failure):
            raise
        say("S3 (moto) that overlooks If-None-Match is caught")
    else:
        raise Failure("a server that overlooks If-None-Match keeps every rule")
    finally:
        server.shutdown()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def create_container(server: subprocess.Popen, endpoint: str, key: str) -> None:
    """One request by hand, signed with the account's key (Azure Storage, "Authorize with Shared Key")."""
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = f"x-ms-date:{date}\nx-ms-version:{API_VERSION}\n"
    resource = f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
    text = "PUT" + "\n" * 12 + headers + resource
    digest = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
    request = urllib.request.Request(f"{endpoint}/{CONTAINER}?restype=container", method="PUT", data=b"")
    request.add_header("x-ms-date", date)
    request.add_header("x-ms-version", API_VERSION)
    # urllib names a type where none is said, and it is signed.
    request.add_header("Content-Type", "")
    request.add_header("Authorization", f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_PATIENCE_S
    while True:
        try:
            with opener.open(request, timeout=START_PATIENCE_S):
                return
        except urllib.error.HTTPError as error:
            raise Failure(f"Azurite refuses to make a container: {error} {error.read().decode(errors='replace')}") from error
        except OSError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"Azurite does not answer: {error}") from error
            time.sleep(0.2)


def of_azure(azurite: str) -> None:
    key, port = base64.b64encode(secrets.token_bytes(64)).decode(), free_port()
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    arguments = ["--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    arguments += ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"}
        server = subprocess.Popen(
            [os.path.abspath(azurite), *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            create_container(server, endpoint, key)
            variables = {
                "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": key,
                "AZURE_ENDPOINT": endpoint,
                "AZURE_ALLOW_HTTP": "true",
            }
            say(judge("Azure (Azurite)", f"az://{CONTAINER}/a/lake", variables))
        finally:
            server.terminate()
            server.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--azurite", default="", help="the program azurite-blob; without it Azure is skipped")
    parser.add_argument("--why", default="", help="why there is none")
    arguments = parser.parse_args()
    try:
        of_s3()
        if arguments.azurite:
            of_azure(arguments.azurite)
    except Failure as failure:
        say(f"FAILED: {failure}")
        return 1
    if not arguments.azurite:
        skip("clouds", arguments.why or "Azure: the program azurite-blob is not named")
    skip("clouds", "Google: no server of others is known that has the generation conditions of its XML API")
    say(f"done; {summary()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
