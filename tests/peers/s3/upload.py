"""The gateway uploads to an S3 server that is not ours (moto), which loses every third reply to a put.

Once over plain HTTP and once over TLS: a device counts up, the gateway reads it in two lives, of which the
first is killed. Every number of the spool has to be in the bucket once, in batches that Polars reads, and
neither slots nor values may go back. At the end a batch is taken away, and the check must notice. And certificates
that nobody may believe are refused, each with a word of why.

Exit status 0 where all of it holds, or where the server does not know create-only puts, which is said.
"""

import argparse
import datetime
import io
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
import polars
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from skipped import skip

SOURCE = "s3-01"
#: Every so-manieth reply to a put is lost.
LOST_EVERY = 3
KEY_ID, SECRET = "AKIAPEER", "secret-of-a-peer"
START_PATIENCE_S, END_PATIENCE_S = 20, 30
BATCH = re.compile(rf"prefix/landing/{SOURCE}/([0-9a-f]{{32}})/(\d{{20}})-(\d{{20}})\.arrow")


class Failure(Exception):
    """Something did not hold."""


def say(text: str) -> None:
    print(f"s3: {text}", flush=True)


class Quiet(WSGIRequestHandler):
    """Says nothing of each request, nor of replies that could not be sent."""

    def log(self, *_) -> None:
        pass


class Forgetful:
    """A server that does what it is told, and then loses the reply."""

    def __init__(self, app):
        self.app, self.puts, self.lost, self.existing, self.is_on = app, 0, 0, 0, False

    def __call__(self, environ, start_response):
        def start(status, headers, *rest):
            # What each start creates twice is no batch.
            self.existing += status.startswith("412") and not environ["PATH_INFO"].endswith("/create-only")
            return start_response(status, headers, *rest)

        answer = self.app(environ, start)
        if self.is_on and environ["REQUEST_METHOD"] == "PUT":
            self.puts += 1
            if self.puts % LOST_EVERY == 0:
                self.lost += 1
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return answer


class Counter:
    """A device that sends a number a line, each larger than the one before."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.number = self.listener.getsockname()[1], 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            stream, _ = self.listener.accept()
            try:
                while True:
                    self.number += 1
                    stream.sendall(f"{self.number}\n".encode())
                    time.sleep(0.02)
            except OSError:
                # The gateway was killed; its next life connects again.
                stream.close()


def certificate(folder: Path, host: str = "127.0.0.1", age_days: int = 1) -> tuple[Path, Path]:
    """A certificate for a host that signs itself, holds for two days since so many ago, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"tests/peers/s3/{folder.name}")])
    begin = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=age_days)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(built.public_bytes(serialization.Encoding.PEM))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    return paths


class Site:
    """A server, a device, and a gateway between them."""

    def __init__(self, folder: Path, bin_folder: Path, tls: bool):
        folder.mkdir()
        self.folder, self.bin_folder = folder, bin_folder
        self.certificate = certificate(folder) if tls else None
        self.app = Forgetful(DomainDispatcherApplication(create_backend_app))
        self.server = make_server(
            "127.0.0.1", 0, self.app, threaded=True, request_handler=Quiet, ssl_context=self.certificate
        )
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self.server.port}"
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            verify=str(self.certificate[0]) if self.certificate else None,
            config=Config(s3={"addressing_style": "path"}),
        )
        # All servers of a process share what they keep.
        self.bucket = f"lake-{folder.name}"
        self.client.create_bucket(Bucket=self.bucket)
        self.write_configuration(Counter().port)

    def write_configuration(self, port: int) -> None:
        credentials = self.folder / "lake.env"
        credentials.touch(mode=0o600)
        credentials.write_text(
            f"AWS_ENDPOINT={self.endpoint}\nAWS_ALLOW_HTTP=true\nAWS_ACCESS_KEY_ID={KEY_ID}\n"
            f"AWS_SECRET_ACCESS_KEY={SECRET}\n",
            encoding="utf-8",
        )
        (self.folder / "gateway.toml").write_text(
            f"""version = 1
gateway = "{SOURCE}"
lake = "s3://{self.bucket}/prefix"
[spool]
dir = "{self.folder}/spool"
sync_every = "200ms"
[upload]
every = "200ms"
credentials_file = "{credentials}"
[[bus]]
name = "counter"
kind = "text-lines"
address = "127.0.0.1:{port}"
[[bus.device]]
name = "counter"
[[bus.device.point]]
sensor = "peer/count"
column = 1
every = "100ms"
""",
            encoding="utf-8",
        )

    def honours_create(self) -> bool:
        """Whether a put where something is is refused."""
        self.client.put_object(Bucket=self.bucket, Key="probe", Body=b"one", IfNoneMatch="*")
        try:
            self.client.put_object(Bucket=self.bucket, Key="probe", Body=b"two", IfNoneMatch="*")
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"] == 412
        return False

    def live(self, seconds: float, end: signal.Signals, name: str) -> None:
        """One life of the gateway."""
        log = self.folder / f"{name}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        if self.certificate:
            environment["SSL_CERT_FILE"] = str(self.certificate[0])
        command = [self.bin_folder / "tjern-gateway", "run", "--config", self.folder / "gateway.toml"]
        with log.open("w", encoding="utf-8") as stderr:
            gateway = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, env=environment)
        try:
            before, patience = len(self.batches()), time.monotonic() + START_PATIENCE_S
            while len(self.batches()) <= before:
                if time.monotonic() > patience or gateway.poll() is not None:
                    raise Failure(f"nothing was uploaded:\n{log.read_text(encoding='utf-8')}")
                time.sleep(0.05)
            time.sleep(seconds)
            gateway.send_signal(end)
            gateway.wait(END_PATIENCE_S)
        finally:
            if gateway.poll() is None:
                gateway.kill()
                gateway.wait()
        text = log.read_text(encoding="utf-8")
        if gateway.returncode != (-signal.SIGKILL if end == signal.SIGKILL else 0) or SECRET in text:
            raise Failure(f"{name}: status {gateway.returncode}\n{text}")

    def batches(self) -> dict[str, bytes]:
        """Every batch in the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix="prefix/landing/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key: b"" for key in keys if BATCH.fullmatch(key)}

    def read(self) -> dict[str, bytes]:
        return {key: self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in self.batches()}

    def waiting(self) -> list[Path]:
        return [path for path in (self.folder / "spool/sealed").rglob("*") if path.is_file()]


def problems(batches: dict[str, bytes]) -> tuple[list[str], int]:
    """What is wrong with the batches of one spool, and how many readings they have."""
    found, following, last = [], 1, (0, None, 0.0)
    epochs = {BATCH.fullmatch(key)[1] for key in batches}
    if len(epochs) != 1:
        found.append(f"{len(epochs)} epochs, where one spool was used")
    for key in sorted(batches):
        _, first, end = BATCH.fullmatch(key).groups()
        if int(first) != following:
            found.append(f"{key}: {following} comes next")
        following = int(end) + 1
        rows = polars.read_ipc_stream(io.BytesIO(batches[key]))
        if rows["seq"].to_list() != list(range(int(first), int(end) + 1)):
            found.append(f"{key}: its numbers are {rows['seq'].to_list()}")
        counts = rows.filter(polars.col("sensor").cast(polars.String) == "peer/count")
        for seq, moment, value in counts.select("seq", "time", "value").drop_nulls().iter_rows():
            # On a busy machine one line may be the newest in two slots.
            if value < last[2] or (last[1] is not None and moment <= last[1]):
                found.append(f"{key}: {(seq, moment, value)} after {last}")
            last = seq, moment, value
    return found, following - 1


def check(site: Site, seconds: float) -> bool:
    """Two lives over one server. Says whether there was anything to check."""
    if not site.honours_create():
        skip("s3", "this server does not know create-only puts (If-None-Match)")
        return False
    site.app.is_on = True
    site.live(seconds, signal.SIGKILL, "killed")
    site.live(seconds, signal.SIGTERM, "ended")
    site.app.is_on = False
    if site.waiting():
        raise Failure(f"something is left in the spool: {site.waiting()}")
    batches = site.read()
    found, count = problems(batches)
    if found:
        raise Failure("\n".join(found))
    if site.app.lost == 0 or site.app.existing == 0:
        raise Failure(f"{site.app.lost} replies were lost, {site.app.existing} puts refused: nothing was shown")
    say(
        f"{site.endpoint.split(':')[0]}: {count} readings in {len(batches)} batches, each once; "
        f"{site.app.lost} of {site.app.puts} replies lost, {site.app.existing} puts found theirs there"
    )
    canary = sorted(batches)[len(batches) // 2]
    if not problems({key: batch for key, batch in batches.items() if key != canary})[0]:
        raise Failure("a batch that was taken away was not missed")
    return True


#: Certificates that no gateway may believe: name, whose, since how many days, whether its signer is trusted, and what is told.
REFUSED = [
    ("expired", "127.0.0.1", 9, True, ["expired", "clock right"]),
    ("early", "127.0.0.1", -3, True, ["not valid yet", "clock right"]),
    ("other", "127.0.0.7", 1, True, ["not valid for name", "another host's"]),
    ("unknown", "127.0.0.1", 1, False, ["UnknownIssuer", "SSL_CERT_FILE"]),
]


def check_refusals(folder: Path, bin_folder: Path) -> None:
    """Who asks `doctor` is told what is wrong with a certificate, and not to look for a cable."""
    folder.mkdir()
    trusted = certificate(folder / "trusted")[0]
    for name, host, age_days, is_signer_known, words in REFUSED:
        paths = certificate(folder / name, host, age_days)
        server = make_server("127.0.0.1", 0, lambda *_: [], threaded=True, request_handler=Quiet, ssl_context=paths)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_ENDPOINT": f"https://127.0.0.1:{server.port}",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "SSL_CERT_FILE": str(paths[0] if is_signer_known else trusted),
        }
        configuration = folder / "gateway.toml"
        configuration.write_text(
            f'version = 1\ngateway = "{SOURCE}"\nlake = "s3://lake/here"\n[spool]\ndir = "{folder}/spool"\n'
            '[[bus]]\nname = "counter"\nkind = "text-lines"\naddress = "127.0.0.1:9"\n[[bus.device]]\nname = "counter"\n'
            '[[bus.device.point]]\nsensor = "peer/count"\ncolumn = 1\nevery = "1min"\n',
            encoding="utf-8",
        )
        command = [bin_folder / "tjern-gateway", "doctor", "--config", configuration]
        said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
        server.shutdown()
        lines = [line for line in (said.stdout + said.stderr).splitlines() if "lake" in line]
        if not any(all(word in line for word in words) for line in lines):
            raise Failure(f"{name}: doctor says nothing of {words}:\n{said.stdout}{said.stderr}")
    say(f"{len(REFUSED)} certificates refused, and doctor says why")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, required=True, help="the folder with tjern-gateway")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    parser.add_argument("--seconds", type=float, default=4, help="how long each life of the gateway is")
    arguments = parser.parse_args()
    try:
        for name, tls in [("http", False), ("https", True)]:
            if not check(Site(arguments.work / name, arguments.bin.resolve(), tls), arguments.seconds):
                return 0
        check_refusals(arguments.work / "refusals", arguments.bin.resolve())
    except Failure as failure:
        say(f"FAILED: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
