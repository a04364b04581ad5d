"""A certificate authority that only a test knows."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from ssl import CERT_REQUIRED, Purpose, SSLContext, create_default_context

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HERE = "127.0.0.1"


class Authority:
    """Signs certificates; `file` is its own, with a key, and could be a server's as well."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = _named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = self._sign(name, self._key, HERE, days=1, authority=True)

    def issue(self, name: str, *, host: str = HERE, days: int = 1) -> Path:
        """Write a certificate and its key into one file; it is valid for so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._sign(name, key, host, days=days, authority=False)

    def _sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, host: str, *, days: int, authority: bool
    ) -> Path:
        signer, start = self._key.public_key(), datetime.now(UTC) - timedelta(days=10)
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=authority,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        made = (
            x509.CertificateBuilder(
                self._name, _named(name), key.public_key(), x509.random_serial_number()
            )
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=10 + days))
            .add_extension(x509.SubjectAlternativeName([_called(host)]), False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), True)
            .add_extension(usage, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), False)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / f"{name}.pem"
        file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret(key))
        return file


def secret(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    """Write a private key in PEM."""
    encryption = (
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password)
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def server_side(pair: Path, *, asks_for: Authority | None = None) -> SSLContext:
    """Make what a server shows, and whose certificates it asks its clients for."""
    context = create_default_context(Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair)
    if asks_for is not None:
        context.load_verify_locations(asks_for.file)
        context.verify_mode = CERT_REQUIRED
    return context


def _called(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
