"""A real nginx in front of the application, with the configuration that docs/deployment.md shows."""

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.documents import DEPLOYMENT, block
from tests.support.process import Process
from tests.support.servers import free_port
from tests.support.waiting import wait_until

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_MAIN = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    {temporary}
    {documented}
}}
"""


class Nginx(Process):
    """nginx on `port`, in front of `app_port`. The documented prefix /live is removed if `prefix` is empty."""

    def __init__(self, folder: Path, app_port: int, prefix: str = "/live", *, tls: bool = False) -> None:
        self.port = free_port()
        self.origin = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        folder.mkdir()
        listen = f"127.0.0.1:{self.port}"
        if tls:
            listen += f" ssl; ssl_certificate {folder}/pem; ssl_certificate_key {folder}/pem"
            (folder / "pem").write_bytes(_certificate())
        documented = _replace(
            block(DEPLOYMENT, "nginx", "proxy_pass"),
            {"listen 80": f"listen {listen}", "http://127.0.0.1:8000/": f"http://127.0.0.1:{app_port}/"},
        )
        if not prefix:
            documented = _replace(documented, {"location /live/": "location /", f":{app_port}/": f":{app_port}"})
        temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in _TEMPORARY)
        configuration = folder / "nginx.conf"
        configuration.write_text(_MAIN.format(folder=folder, temporary=temporary, documented=documented))
        super().__init__([_program(), "-p", str(folder), "-e", "stderr", "-c", str(configuration)], folder, {})
        wait_until((folder / "nginx.pid").exists, what=lambda: f"nginx has started:\n{self.log}")


def _program() -> str:
    """Return the path of nginx. If there is none, skip the test, or fail it in CI."""
    path = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("there is no nginx: install the package nginx")
        pytest.skip("there is no nginx")
    return path


def _replace(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def _certificate() -> bytes:
    """Return a key and a certificate signed with it, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    until, serial = now + timedelta(days=1), x509.random_serial_number()
    certificate = x509.CertificateBuilder(name, name, key.public_key(), serial, now, until).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
