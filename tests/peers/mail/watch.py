"""`tjern pipeline watch` beside a mail server that is not ours (aiosmtpd), over STARTTLS and over TLS, and a webhook.

A city whose disk is asked to have more room than there is. The mail has to come once, with what Python's own
`email` reads in it, in spite of restarts; the end has to come once, too. A server whose certificate nobody
trusts, a wrong password and a server without TLS get no mail, the error is told with status 1, and no secret is in
anything that is written, on stderr, on stdout or in the lake.
"""

import argparse
import email
import email.policy
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

PASSWORD = "canary-of-the-password"
ADDRESS = "canary-of-the-address"
TOKEN = "canary-of-the-token"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine that signs itself, and its key."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", paths[1], "-out", paths[0]],
        check=True, capture_output=True,
    )
    return paths


def free_port() -> int:
    """aiosmtpd looks for itself at the port that it was given, so that 0 will not do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Post:
    """Keeps what comes."""

    def __init__(self):
        self.mails = []
        self.implicit = False

    async def handle_DATA(self, server, session, envelope):
        assert self.implicit or session.ssl is not None, "a mail over an open line"
        assert session.authenticated, "a mail from nobody"
        self.mails.append((envelope.rcpt_tos, email.message_from_bytes(envelope.content, policy=email.policy.default)))
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    good = mechanism == "PLAIN" and data.login == b"tjern" and data.password == PASSWORD.encode()
    return AuthResult(success=good, handled=good)


def mail_server(post: Post, tls: str, paths: tuple[Path, Path]) -> Controller:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*paths)
    named = {"hostname": "127.0.0.1", "port": free_port(), "ready_timeout": 60, "authenticator": authenticate, "auth_require_tls": True}
    if tls == "starttls":
        controller = Controller(post, tls_context=context, require_starttls=True, **named)
    else:
        # aiosmtpd knows of TLS only where it was asked for by STARTTLS; here nothing else is spoken.
        post.implicit = True
        controller = Controller(post, ssl_context=context, **{**named, "auth_require_tls": False})
    controller.start()
    return controller


class Hook(BaseHTTPRequestHandler):
    bodies: list = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path.endswith(ADDRESS) and self.headers["authorization"] == f"Bearer {TOKEN}"
        Hook.bodies.append(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class City:
    def __init__(self, folder: Path, program: Path, server: str, tls: str, environment: dict):
        folder.mkdir(parents=True)
        self.folder, self.program, self.environment = folder, program, environment
        self.server, self.tls, self.said = server, tls, ""
        self.configure("1000TiB")

    def configure(self, disk_free: str):
        hook = ""
        if "TJERN_WEBHOOK_URL" in self.environment:
            hook = "[watch.webhook]\n"
        (self.folder / "tjern.toml").write_text(
            f'version = 1\nlake = "file://{self.folder}/lake"\n[watch]\ndisk_free = "{disk_free}"\n{hook}'
            f'[watch.mail]\nserver = "{self.server}"\ntls = "{self.tls}"\nfrom = "tjern@example.org"\n'
            'to = ["vakt@example.org", "drift@example.org"]\nuser = "tjern"\npassword_file = "password"\n'
        )
        (self.folder / "password").write_text(PASSWORD + "\n")

    def watch(self) -> tuple[int, dict]:
        command = [self.program, "pipeline", "watch", "--json", "--config", self.folder / "tjern.toml"]
        environment = {**os.environ, "RUST_LOG": "trace", **self.environment}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        self.said += done.stdout + done.stderr
        return done.returncode, json.loads(done.stdout)

    def calm_down(self):
        """Puts the beginning of the calm back by an hour: it lasts ten minutes."""
        path = self.folder / "lake/jobs/watch/state.json"
        state = json.loads(path.read_text())
        for alert in state["alerts"].values():
            alert["calm_since"] = alert["calm_since"].replace(alert["calm_since"][:4], "2020", 1)
        path.write_text(json.dumps(state))

    def secrets_shown(self) -> list[str]:
        texts = [self.said.encode()] + [path.read_bytes() for path in (self.folder / "lake").rglob("*") if path.is_file()]
        return [word for word in (PASSWORD, ADDRESS, TOKEN) if any(word.encode() in text for text in texts)]


def told_once(work: Path, program: Path, tls: str, paths: tuple[Path, Path]):
    post = Post()
    server = mail_server(post, tls, paths)
    port = server.server.sockets[0].getsockname()[1]
    hook = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    Hook.bodies.clear()
    environment = {
        "SSL_CERT_FILE": str(paths[0]),
        "TJERN_WEBHOOK_URL": f"http://127.0.0.1:{hook.server_port}/{ADDRESS}",
        "TJERN_WEBHOOK_TOKEN": TOKEN,
    }
    city = City(work / tls, program, f"localhost:{port}", tls, environment)
    statuses = [city.watch()[0] for _ in range(3)]
    city.configure("1B")
    statuses += [city.watch()[0]]
    city.calm_down()
    statuses += [city.watch()[0], city.watch()[0]]
    assert statuses == [0] * 6, city.said
    assert [body["events"][0]["change"] for body in Hook.bodies] == ["begun", "ended"], Hook.bodies
    assert len(post.mails) == 2, [str(mail) for _, mail in post.mails]
    receivers, mail = post.mails[0]
    assert receivers == ["vakt@example.org", "drift@example.org"] and mail["to"] == "vakt@example.org, drift@example.org"
    assert mail["subject"] == f"Tjern: disk: {city.folder}/lake", mail["subject"]
    text = mail.get_content()
    assert text.startswith("BEGUN ") and "MiB left" in text and "no safety alarm" in text, text
    assert post.mails[1][1]["subject"].startswith("Tjern: over: disk") and post.mails[1][1].get_content().startswith("OVER")
    assert mail["message-id"] != post.mails[1][1]["message-id"]
    assert not city.secrets_shown(), city.secrets_shown()
    print(f"mail: over {tls}: told once by mail and by webhook, and once that it was over, in 6 runs; no secret was shown")
    return server, port, post, hook


def refused(work: Path, program: Path, name: str, server: str, tls: str, environment: dict, part: str, password: str = PASSWORD):
    city = City(work / name, program, server, tls, environment)
    (city.folder / "password").write_text(password)
    status, line = city.watch()
    assert status == 1 and line["outcome"] == "failed" and part in line["error"], (status, line)
    shown = [word for word in city.secrets_shown() if word != PASSWORD or password == PASSWORD]
    assert not shown and password not in city.said, shown
    print(f"mail: {name}: status 1, {line['error']!r}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    program = arguments.bin.resolve() / "tjern"
    work = arguments.work.resolve()
    paths = certificate(work / "certificate")
    trusting = {"SSL_CERT_FILE": str(paths[0])}
    server, port, post, _ = told_once(work, program, "starttls", paths)
    before = len(post.mails)
    refused(work, program, "a-wrong-password", f"localhost:{port}", "starttls", trusting, "535", "a-wrong-canary")
    others = certificate(work / "another")
    refused(work, program, "an-untrusted-certificate", f"localhost:{port}", "starttls", {"SSL_CERT_FILE": str(others[0])}, "certificate")
    refused(work, program, "a-wrong-name", f"127.0.0.1:{port}", "starttls", trusting, "certificate")
    refused(work, program, "an-open-line", f"localhost:{port}", "none", trusting, "without TLS")
    assert len(post.mails) == before
    server.stop()
    refused(work, program, "a-server-that-is-away", f"localhost:{port}", "starttls", trusting, "cannot be reached")
    open_server = Controller(Post(), hostname="127.0.0.1", port=free_port(), ready_timeout=60)
    open_server.start()
    open_port = open_server.server.sockets[0].getsockname()[1]
    refused(work, program, "a-server-without-tls", f"localhost:{open_port}", "starttls", trusting, "STARTTLS")
    open_server.stop()
    told_once(work, program, "tls", paths)[0].stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
