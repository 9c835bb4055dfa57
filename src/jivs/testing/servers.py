"""Private servers for tests and benchmarks: on loopback, on free ports, in a folder of their own, as a user that
is not root, stopped by their own process id.
"""

from __future__ import annotations

import json
import logging
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import Any, Self

PASSWORD = secrets.token_hex(12)  # no letter of it means anything to a shell, a URL or a command that takes options
_USER = "nobody"
_START_SECONDS = 60


def free_port() -> int:
    """A port of loopback that nobody listens on, and none that the system may give to a connection in the meantime."""
    while True:
        port = SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _binary(name: str, *folders: str) -> str:
    for folder in folders:
        matches = sorted(Path("/").glob(f"{folder.lstrip('/')}/{name}"), reverse=True)
        if matches:
            return str(matches[0])
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed: run `make servers`.")
    return found


def _as_user(command: Sequence[str]) -> list[str]:
    """The command, as an ordinary user if this process is root (servers refuse to run as root)."""
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", f"--reuid={_USER}", f"--regid={pwd.getpwnam(_USER).pw_gid}", "--clear-groups", *command]


class Server:
    """A server in a folder of its own. A context manager; ``kill`` ends it as a crash would, ``start`` starts it again."""

    ending = signal.SIGTERM
    """Ends it in good order."""

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"jivs-{name}-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, _USER)
        self.folder.chmod(0o755)

    def run(self, command: Sequence[str]) -> None:
        """A preparing command, as the server's user."""
        done = subprocess.run(_as_user(command), cwd=self.folder, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout.decode()}{done.stderr.decode()}")

    def command(self) -> list[str]:
        """The server's command line."""
        raise NotImplementedError  # each server has its own

    def full_command(self) -> list[str]:
        """The command line, as an ordinary user."""
        return _as_user(self.command())

    def ready(self) -> bool:
        """Whether it answers."""
        raise NotImplementedError  # each server has its own

    def start(self) -> None:
        """Start and wait until it answers."""
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(self.full_command(), cwd=self.folder, stdout=log, stderr=log)
        log.close()
        wait_for(lambda: self.process is not None and (self.process.poll() is not None or self.ready()), _START_SECONDS)
        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "server.log").read_text(errors="replace")[-2000:])

    def stop(self, number: int = 0) -> None:
        """End the server, in good order or by a signal, and wait for it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number or self.ending)
            self.process.send_signal(signal.SIGCONT)  # a frozen one would not hear it
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def crash(self) -> None:
        """End it at once."""
        self.stop(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it stand still: connections stay, nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def write(self, name: str, text: str) -> Path:
        """A file that only the server's user reads."""
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text)
        if os.geteuid() == 0:
            shutil.chown(path, _USER)
        return path

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def make_certificate(self, folder: Path) -> None:
        """A key and a certificate that it signs itself, ``server.key`` and ``server.crt``."""
        self.run([
            "openssl", "req", "-new", "-x509", "-days", "3650", "-nodes", "-subj", "/CN=localhost", "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", str(folder / "server.crt"), "-keyout",
            str(folder / "server.key"),
        ])  # fmt: skip
        self._certificates = folder

    @property
    def certificate(self) -> Path:
        """The server's certificate, to trust it."""
        copy = self.folder / "ca.crt"
        copy.write_bytes((self._certificates / "server.crt").read_bytes())
        return copy


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Poll until the condition holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.05)


class PostgresServer(Server):
    """PostgreSQL with password logins and TLS; durability off, for tests only."""

    ending = signal.SIGINT  # by SIGTERM it waits for everybody to leave

    def __init__(self, **settings: str) -> None:
        super().__init__("postgresql")
        self.settings = settings
        self.data = self.folder / "data"
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        initdb = _binary("initdb", "/usr/lib/postgresql/*/bin")
        self.run([
            initdb, "-D", str(self.data), "-U", "jivs", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8",
            "--locale=C.UTF-8", "--no-sync",
        ])  # fmt: skip
        password.unlink()
        self.make_certificate(self.data)

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "shared_buffers": "256MB",
            "max_wal_size": "4GB",
            "ssl": "on",
            "max_connections": "100",
            "max_locks_per_transaction": "256",
            **self.settings,
        }
        postgres = _binary("postgres", "/usr/lib/postgresql/*/bin")
        return [postgres, "-D", str(self.data), *(f"--{key}={value}" for key, value in settings.items())]

    def ready(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True

    def url(self, database: str, password: str = PASSWORD) -> str:
        """A connection URL."""
        return f"postgresql://jivs:{password}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, options: str = "") -> str:
        """A new database; its URL."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'create database "{database}" {options}')
        return self.url(database)

    def crash(self) -> None:
        """End it at once, as a power cut would."""
        self.stop(3)


class MariaServer(Server):
    """MariaDB; durability relaxed, for tests only. ``tls``: with a certificate."""

    def __init__(self, *, tls: bool = False, **settings: str) -> None:
        super().__init__("mariadb")
        self.settings = settings
        if tls:
            keys = self.folder / "keys"
            self.run(["mkdir", str(keys)])
            self.make_certificate(keys)
            self.settings |= {"ssl-cert": str(keys / "server.crt"), "ssl-key": str(keys / "server.key")}
        self.data, self.temporary = self.folder / "data", self.folder / "tmp"
        self.run(["mkdir", str(self.temporary)])  # one that begins removes the temporary tables of all that share it
        self.run([
            _binary("mariadb-install-db", "/usr/bin"), "--no-defaults", f"--datadir={self.data}",
            f"--tmpdir={self.temporary}", "--skip-test-db", "--auth-root-authentication-method=normal",
        ])  # fmt: skip
        self._prepared = False

    def command(self) -> list[str]:
        settings = {
            "datadir": str(self.data),
            "tmpdir": str(self.temporary),
            "bind-address": "127.0.0.1",
            "port": str(self.port),
            "socket": str(self.folder / "s.sock"),
            "pid-file": str(self.folder / "pid"),
            "innodb-flush-log-at-trx-commit": "0",
            "innodb-buffer-pool-size": "256M",
            "innodb-fast-shutdown": "2",
            "max-allowed-packet": "256M",
            "character-set-server": "utf8mb4",
            **self.settings,
        }
        server = _binary("mariadbd", "/usr/sbin")
        return [server, "--no-defaults", *(f"--{key}={value}" for key, value in settings.items())]

    def ready(self) -> bool:
        import pymysql

        try:
            if not self._prepared:
                root = pymysql.connect(unix_socket=str(self.folder / "s.sock"), user="root", autocommit=True)
                with root.cursor() as cursor:
                    cursor.execute("create or replace user jivs@'127.0.0.1' identified by %s", (PASSWORD,))
                    cursor.execute("grant all on *.* to jivs@'127.0.0.1' with grant option")
                root.close()
                self._prepared = True
            self.connect("mysql").close()
        except pymysql.Error:
            return False
        return True

    def connect(self, database: str, **more: object) -> Any:
        """A driver's connection."""
        import pymysql

        given = {"host": "127.0.0.1", "port": self.port, "user": "jivs", "password": PASSWORD, "autocommit": True, **more}
        return pymysql.connect(database=database, **given)

    def url(self, database: str, password: str = PASSWORD, user: str = "jivs") -> str:
        """A connection URL."""
        return f"mariadb://{user}:{password}@127.0.0.1:{self.port}/{database}"


class RedisServer(Server):
    """Redis with a password, as a cache: 64 MB, the least recently used go first. ``settings`` as in redis.conf."""

    def __init__(self, **settings: str) -> None:
        super().__init__("redis")
        given = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": PASSWORD,
            "dir": str(self.folder),
            "save": '""',
            "maxmemory": "64mb",
            "maxmemory-policy": "allkeys-lru",
            **settings,
        }
        self.write("redis.conf", "".join(f"{key} {value}\n" for key, value in given.items()))

    def command(self) -> list[str]:
        return [_binary("redis-server", "/usr/bin"), str(self.folder / "redis.conf")]

    def ready(self) -> bool:
        import redis

        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    def client(self) -> Any:
        """A driver's client."""
        import redis

        return redis.Redis(host="127.0.0.1", port=self.port, password=PASSWORD, socket_timeout=5)


class RabbitServer(Server):
    """RabbitMQ: a node of its own with an epmd of its own, both on loopback only."""

    def __init__(self) -> None:
        super().__init__("rabbitmq")
        logging.getLogger("pika").setLevel(logging.CRITICAL)  # or it prints a traceback for every attempt to connect
        self._names = free_port()
        self._between = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None
        self.write(
            "rabbitmq.conf",
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\ndefault_user = jivs\ndefault_pass = {PASSWORD}\n"
            "vm_memory_high_watermark.absolute = 256MB\ndisk_free_limit.absolute = 50MB\nlog.file = false\n"
            "log.console = true\nlog.console.level = warning\n",
        )
        self.write("plugins", "[].\n")
        self._environment = [
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            f"HOME={self.folder}",
            "ERL_EPMD_ADDRESS=127.0.0.1",
            f"ERL_EPMD_PORT={self._names}",
            f"RABBITMQ_DIST_PORT={self._between}",
            f"RABBITMQ_NODENAME=jivs{self.port}@localhost",
            f"RABBITMQ_CONF_ENV_FILE={self.folder / 'none'}",
            f"RABBITMQ_CONFIG_FILE={self.folder / 'rabbitmq.conf'}",
            f"RABBITMQ_ENABLED_PLUGINS_FILE={self.folder / 'plugins'}",
            f"RABBITMQ_MNESIA_BASE={self.folder / 'mnesia'}",
            f"RABBITMQ_GENERATED_CONFIG_DIR={self.folder / 'generated'}",
            f"RABBITMQ_LOG_BASE={self.folder / 'log'}",
            "RABBITMQ_ALLOW_INPUT=1",  # the script becomes the node, instead of watching it as a second process
            "RABBITMQ_SERVER_START_ARGS=-noinput",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none",
        ]

    def command(self) -> list[str]:
        return ["env", "-i", *self._environment, "/usr/lib/rabbitmq/bin/rabbitmq-server"]

    def start(self) -> None:
        if self._epmd is None:  # the node would start one that outlives it
            command = [_binary("epmd", "/usr/bin"), "-address", "127.0.0.1", "-port", str(self._names)]
            self._epmd = subprocess.Popen(_as_user(command), cwd=self.folder)
        super().start()

    def ready(self) -> bool:
        import pika

        try:
            pika.BlockingConnection(self.parameters()).close()
        except (pika.exceptions.AMQPError, OSError):
            return False
        return True

    def control(self, *words: str) -> None:
        """What an operator does with rabbitmqctl."""
        self.run(["env", "-i", *self._environment, "/usr/lib/rabbitmq/bin/rabbitmqctl", *words])

    def parameters(self) -> Any:
        """What a driver connects with."""
        import pika

        credentials = pika.PlainCredentials("jivs", PASSWORD)
        return pika.ConnectionParameters("127.0.0.1", self.port, credentials=credentials)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self._epmd is not None:
            self._epmd.terminate()
            self._epmd.wait()


class S3Server(Server):
    """An object store (moto) that checks signatures and lists twenty objects a page; everything is in its memory.

    It runs as the user of the tests: the interpreter may lie where only that user can read it.
    """

    region = "us-east-1"

    def __init__(self) -> None:
        super().__init__("s3")
        self.key = ""
        self.secret = ""
        self._clients: dict[tuple[str, str], Any] = {}

    def command(self) -> list[str]:
        return ["env", "MOTO_S3_DEFAULT_MAX_KEYS=20", sys.executable, "-m", "jivs.testing.objects", str(self.port)]

    def full_command(self) -> list[str]:
        return self.command()

    def ready(self) -> bool:
        with suppress(OSError):
            urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=5).close()
            return True
        return False

    def start(self) -> None:
        super().start()
        iam = self.client("iam")
        iam.create_user(UserName="jivs")
        made = iam.create_access_key(UserName="jivs")["AccessKey"]
        everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        iam.put_user_policy(UserName="jivs", PolicyName="all", PolicyDocument=json.dumps(everything))
        self.key, self.secret = made["AccessKeyId"], made["SecretAccessKey"]
        headers = {"Content-Type": "text/plain"}
        strict = urllib.request.Request(f"{self.url}/moto-api/reset-auth", data=b"0", headers=headers, method="POST")
        urllib.request.urlopen(strict, timeout=5).close()

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """The settings with which JiVS uses it."""
        return {
            "JIVS_S3_ENDPOINT": self.url,
            "AWS_REGION": self.region,
            "AWS_ACCESS_KEY": self.key,
            "AWS_SECRET_KEY": self.secret,
        }

    def client(self, service: str = "s3") -> Any:
        """A client of its own, made once for its keys."""
        import boto3

        made = (service, self.key)
        if made not in self._clients:
            keys = {"aws_access_key_id": self.key or "nobody", "aws_secret_access_key": self.secret or "nothing"}
            session = boto3.session.Session(**keys, region_name=self.region)
            self._clients[made] = session.client(service, endpoint_url=self.url)
        return self._clients[made]
