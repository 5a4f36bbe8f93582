"""TLS, mutual TLS, rotation and tokens."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contract.errors import AuthenticationError, ConfigError, UnavailableError
from pipeline.cli.main import main
from serving.client.blocking_client import RankingClient
from serving.client.probe import healthy
from serving.client.probe import main as probe
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from tests.patience import PATIENCE


@dataclass
class Identity:
    """PEM certificate and key."""

    certificate: bytes
    key: bytes


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Authority:
    """Signs certificates for localhost."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(name("test authority"), self._key, authority=True)
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name("test authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def identity(self, common: str) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        signed = self._sign(name(common), key, authority=False)
        return Identity(signed.public_bytes(serialization.Encoding.PEM), private)


@dataclass
class Files:
    """Where the server's PEM files lie."""

    certificate: Path
    key: Path
    authority: Path

    def write(self, identity: Identity, authority: Authority) -> None:
        for path, content in (
            (self.certificate, identity.certificate),
            (self.key, identity.key),
            (self.authority, authority.pem),
        ):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.replace(path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "authority.pem")


def connect(port: int, authority: Authority, identity: Identity | None = None) -> RankingClient:
    key, chain = (identity.key, identity.certificate) if identity else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.pem, key, chain)
    return RankingClient(f"localhost:{port}", credentials=credentials, attempts=1, seconds=PATIENCE)


def test_tls_is_spoken_and_plaintext_and_strangers_are_not_understood(store: Path, files: Files) -> None:
    authority = Authority()
    files.write(authority.identity("server"), authority)
    settings = ServerSettings(store=store, port=0, tls_certificate=files.certificate, tls_key=files.key)
    with start(settings) as server:
        with connect(server.port, authority) as client:
            assert client.rank(1, [100]).version == 1
        assert healthy(f"localhost:{server.port}", credentials=grpc.ssl_channel_credentials(authority.pem))
        assert not healthy(f"localhost:{server.port}")
        with (
            RankingClient(f"localhost:{server.port}", attempts=1, seconds=PATIENCE) as plain,
            pytest.raises(UnavailableError),
        ):
            plain.rank(1, [100])
        with connect(server.port, Authority()) as stranger, pytest.raises(UnavailableError):
            stranger.rank(1, [100])


def test_mutual_tls_asks_clients_for_a_certificate_of_the_authority(store: Path, files: Files) -> None:
    authority = Authority()
    files.write(authority.identity("server"), authority)
    settings = ServerSettings(
        store=store, port=0, tls_certificate=files.certificate, tls_key=files.key, tls_client_ca=files.authority
    )
    with start(settings) as server:
        with connect(server.port, authority, authority.identity("client")) as client:
            assert client.rank(1, [100]).version == 1
        for identity in (None, Authority().identity("client")):
            with connect(server.port, authority, identity) as refused, pytest.raises(UnavailableError):
                refused.rank(1, [100])


def test_certificates_are_rotated_while_serving_and_no_call_fails(store: Path, files: Files) -> None:
    old, new = Authority(), Authority()
    files.write(old.identity("server"), old)
    settings = ServerSettings(store=store, port=0, tls_certificate=files.certificate, tls_key=files.key)
    with start(settings) as server, connect(server.port, old) as client:
        assert client.rank(1, [100]).version == 1
        files.certificate.write_bytes(b"half a file")
        with connect(server.port, old) as another:
            assert another.rank(1, [100]).version == 1
        files.write(new.identity("server"), new)
        with connect(server.port, new) as fresh:
            assert fresh.rank(1, [100]).version == 1
        assert client.rank(1, [100]).version == 1
        with connect(server.port, old) as late, pytest.raises(UnavailableError):
            late.rank(1, [100])


def test_the_authority_of_clients_is_rotated_too(store: Path, files: Files) -> None:
    old, new = Authority(), Authority()
    files.write(old.identity("server"), old)
    settings = ServerSettings(
        store=store, port=0, tls_certificate=files.certificate, tls_key=files.key, tls_client_ca=files.authority
    )
    with start(settings) as server, connect(server.port, old, old.identity("client")) as client:
        assert client.rank(1, [100]).version == 1
        files.write(new.identity("server"), new)
        with connect(server.port, new, new.identity("client")) as fresh:
            assert fresh.rank(1, [100]).version == 1
        with connect(server.port, new, old.identity("client")) as outdated, pytest.raises(UnavailableError):
            outdated.rank(1, [100])
        # Who is connected stays so.
        assert client.rank(1, [100]).version == 1


def test_the_command_line_brings_certificates_and_tokens(
    store: Path, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, tokens = Authority(), tmp_path / "tokens"
    files.write(authority.identity("server"), authority)
    tokens.write_text("secret\n")
    mine = Files(tmp_path / "my.pem", tmp_path / "my.key", tmp_path / "their.pem")
    mine.write(authority.identity("client"), authority)
    settings = ServerSettings(
        store=store,
        port=0,
        tls_certificate=files.certificate,
        tls_key=files.key,
        tls_client_ca=files.authority,
        token_file=tokens,
    )
    ca = ["--tls-ca", str(mine.authority)]
    both = ["--tls-certificate", str(mine.certificate), "--tls-key", str(mine.key)]
    with start(settings) as server:
        target = f"localhost:{server.port}"
        rank = ["rank", "--target", target, "--items", "100", "--seconds", "2"]
        patient = [*rank[:-1], str(PATIENCE)]
        assert main([*patient, *ca, *both, "--token", "secret", "--debug"]) == 0
        assert "experts: 50% of all were used" in capsys.readouterr().out
        assert probe([target, *ca, *both]) == 0
        assert probe([target, *ca]) == 1
        assert main(["bench-endpoint", target, *ca, *both, "--token", "secret", "--seconds", "0.5"]) == 0
        for less in ([*ca, *both], [*ca, "--token", "secret"], []):
            assert main([*rank, *less]) == 1
    assert main([*rank, *both]) == 2
    assert main([*rank, *ca, *both[:2]]) == 2
    assert main([*rank, "--tls-ca", str(tmp_path / "absent")]) == 2


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\n"])
def test_files_that_are_no_certificates_do_not_start(store: Path, files: Files, content: bytes) -> None:
    files.certificate.write_bytes(content)
    files.key.write_bytes(b"")
    with pytest.raises(ConfigError, match="no PEM"):
        start(ServerSettings(store=store, port=0, tls_certificate=files.certificate, tls_key=files.key))


def test_half_of_a_tls_configuration_is_refused(tmp_path: Path) -> None:
    for flags in ({"tls_key": "k"}, {"tls_certificate": "c"}, {"tls_client_ca": "a"}):
        with pytest.raises(ConfigError, match="--tls-certificate"):
            ServerSettings.read({"store": tmp_path, **flags}, {})


def test_tls_may_listen_beyond_loopback(tmp_path: Path) -> None:
    flags = {"store": tmp_path, "host": "192.0.2.1", "tls_certificate": "c", "tls_key": "k"}
    assert ServerSettings.read(flags, {}).host == "192.0.2.1"


def test_calls_need_a_token_of_the_file_and_health_does_not(store: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("first\n\nsecond\n")

    def client(port: int, token: str | None) -> RankingClient:
        metadata = [("authorization", f"Bearer {token}")] if token is not None else []
        return RankingClient(f"127.0.0.1:{port}", attempts=1, seconds=PATIENCE, metadata=metadata)

    with start(ServerSettings(store=store, port=0, token_file=tokens)) as server:
        for token in ("first", "second"):
            with client(server.port, token) as good:
                assert good.rank(1, [100]).version == 1
        for wrong in (None, "", "third", "fir"):
            with client(server.port, wrong) as bad, pytest.raises(AuthenticationError):
                bad.rank(1, [100])
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            assert check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        tokens.write_text("third\n")
        with client(server.port, "third") as rotated:
            assert rotated.rank(1, [100]).version == 1
        with client(server.port, "first") as outdated, pytest.raises(AuthenticationError):
            outdated.rank(1, [100])
