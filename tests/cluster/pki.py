"""The certificates of one test cluster: its own authority, server certificates, users and their kubeconfigs.

Everything is made anew for each cluster and lives as long as its folder; nothing here is fit for production.
"""

import base64
import datetime
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = datetime.timedelta(days=365)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, as files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """Signs every certificate of one cluster; `folder` holds all of them."""

    folder: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, folder: Path) -> "Authority":
        """Make a new authority: `ca.crt` and `ca.key` in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "skillupdate test cluster")])
        builder = (
            _builder(name, name, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(certificates=True), critical=True)
        )
        certificate = builder.sign(key, hashes.SHA256())
        _write(folder / "ca", certificate, key)
        return cls(folder, certificate, key)

    @property
    def pair(self) -> Pair:
        """The authority's own files."""
        return _pair(self.folder / "ca")

    def issue(self, file: str, common_name: str, *, groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> Pair:
        """Sign a certificate for a user (in `groups`, as Kubernetes reads them) or a server (at `hosts`)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
            + [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        )
        # Python 3.13 verifies strictly (RFC 5280): it refuses certificates without the key identifiers.
        authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = (
            _builder(subject, self.certificate.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(authority_id, critical=False)
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        certificate = builder.sign(self.key, hashes.SHA256())
        _write(self.folder / file, certificate, key)
        return _pair(self.folder / file)

    def kubeconfig(self, file: str, server: str, user: Pair) -> Path:
        """Write a kubeconfig that needs no other file, and return its path."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": server, "certificate-authority-data": _encoded(self.pair.certificate)},
                }
            ],
            "users": [
                {
                    "name": "test",
                    "user": {
                        "client-certificate-data": _encoded(user.certificate),
                        "client-key-data": _encoded(user.key),
                    },
                }
            ],
        }
        path = self.folder / file
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=1))  # JSON is YAML
        return path


def key_pair(stem: Path) -> tuple[Path, Path]:
    """Make the key pair that signs service-account tokens: the private and the public file."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = stem.with_suffix(".key"), stem.with_suffix(".pub")
    _write_key(private, key)
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pair(stem: Path) -> Pair:
    return Pair(stem.with_suffix(".crt"), stem.with_suffix(".key"))


def _write(stem: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    pair = _pair(stem)
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_key(pair.key, key)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
