"""The way over TLS: an authority of the fleet's own, a box with a certificate, servers that are not who they say."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from signing import Device, Publisher

from tests.unit.update import webserver


def certificate(folder: Path, name: str) -> Path:
    """A certificate that vouches for itself, for this machine's own address; its key lies in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(made.public_bytes(Encoding.PEM) + secret)
    return path


@contextmanager
def serving(folder: Path, identity: Path, clients: Path | None = None) -> Iterator[str]:
    """The URL; with `clients`, only who shows that certificate is served."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    server = webserver.Server(folder)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with webserver.running(server):
        yield server.url.replace("http://", "https://")


def test_an_authority_of_the_fleets_own(
    publisher: Publisher, device: Device, models: list[Path], tmp_path: Path
) -> None:
    publisher.release(models[1], "2.0", 2)
    ours, other = certificate(tmp_path, "ours"), certificate(tmp_path, "other")
    with serving(publisher.folder, ours) as url:
        for authorities in (None, other):
            report = device.update(source=url, authorities=authorities)
            assert (report.code, "CERTIFICATE_VERIFY_FAILED" in report.message) == ("unreachable", True), report
        assert device.update(source=url, authorities=ours).phase == "staged"


@pytest.mark.parametrize("shown", [True, False])
def test_a_server_that_serves_only_its_own_boxes(
    publisher: Publisher, device: Device, models: list[Path], tmp_path: Path, shown: bool
) -> None:
    publisher.release(models[1], "2.0", 2)
    ours, box = certificate(tmp_path, "ours"), certificate(tmp_path, "box")
    with serving(publisher.folder, ours, box) as url:
        report = device.update(source=url, authorities=ours, certificate=box if shown else None)
    assert (report.phase, report.code) == (("staged", "") if shown else ("failed", "unreachable"))
