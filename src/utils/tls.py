"""TLS towards a backend: whom to trust, and who we say we are."""

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx2


class UnusableFile(ValueError):
    """A file that a setting names cannot be used; `setting` is that setting."""

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message)
        self.setting = setting


def client_context(
    *,
    verify: bool = True,
    ca_bundle: Path | None = None,
    client_cert: Path | None = None,
    client_key: Path | None = None,
) -> ssl.SSLContext:
    """Make what connections are encrypted with.

    Args:
        verify: whether the server has to show a certificate that is trusted and made for it.
        ca_bundle: whom to trust, in PEM, instead of those whom this machine trusts.
        client_cert: our own certificate, in PEM, for a server that asks for one.
        client_key: its key, in PEM and not encrypted; by default it is in the same file.

    Raises:
        UnusableFile: a file cannot be read, or does not hold what it should.

    """
    if ca_bundle is None:
        context = httpx2.create_ssl_context(verify, trust_env=False)
    else:
        with _reading("ca_bundle", ca_bundle, "holds no certificates in PEM"):
            context = ssl.create_default_context(cafile=ca_bundle)
    if client_cert is not None:
        with _reading("client_cert", client_cert), client_cert.open("rb"):
            pass
        setting, file = ("client_key", client_key) if client_key else ("client_cert", client_cert)
        with _reading(setting, file, "does not hold, in PEM, the key of client_cert, unencrypted"):
            # Without a password given here, one would be asked for on the terminal.
            context.load_cert_chain(client_cert, client_key, password="")
    return context


@contextmanager
def _reading(setting: str, file: Path, otherwise: str = "") -> Generator[None]:
    """Say which setting names a file that cannot be used."""
    try:
        yield
    except ssl.SSLError as error:
        raise UnusableFile(setting, f"{file} {otherwise}") from error
    except OSError as error:
        raise UnusableFile(setting, f"{file} cannot be read: {error.strerror}") from error
