"""Files of a served warm store below its home: who they are for, and what the engine reads from them.

HOME/warm/                                the engine's data
HOME/engine/endpoint.json                 port and passwords, chosen once
HOME/engine/users.xml, .clickhouse-local/ what the engine is told, written anew at each start
HOME/engine/{start,supervisor,engine}.lock  who starts, watches and runs it; the last two hold a process id
HOME/engine/tmp/                          scratch files, emptied at each start
HOME/logs/warm.log, warm-supervisor.log   the engine's log; the supervisor's, with what the engine prints
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
import zlib
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from config.run_file import write_private
from market.errors import ConfigError, FatalError
from sinks.endpoint import Endpoint

ENGINE_VERSION: Final = "26.9."
WRITER: Final = "k2_writer"
READER: Final = "k2_reader"
LOOPBACK: Final = "127.0.0.1"
# Below the range that systems hand out to outgoing connections, so that nobody takes the port while the engine restarts.
FIRST_PORT: Final = 20_000
PORTS: Final = 10_000
BODY_SECONDS: Final = 5  # an insert whose client freezes while it sends ends after this; its successor waits for that
LOCK_TRIES: Final = 10
# What a reading user needs besides the tables: drivers and dashboards ask these when they connect.
READER_SYSTEM_TABLES: Final = (
    "one", "numbers", "databases", "tables", "columns", "functions", "settings", "parts", "formats", "data_type_families",
    "table_functions", "table_engines", "keywords", "merges", "metrics", "events", "build_options", "time_zones",
)  # fmt: skip

# Without a container of its own, the memory of its control group is that of every process here: the engine must not count it.
_CONFIG = """<clickhouse>
 <listen_host>{host}</listen_host><http_port>{port}</http_port><users_config>{engine}/users.xml</users_config>
 <tmp_path>{engine}/tmp/</tmp_path>
 <max_server_memory_usage>{memory}</max_server_memory_usage><mark_cache_size>268435456</mark_cache_size>
 <background_schedule_pool_size>16</background_schedule_pool_size>
 <memory_worker_use_cgroup>0</memory_worker_use_cgroup><memory_worker_dynamic_hard_limit>0</memory_worker_dynamic_hard_limit>
 <keep_alive_timeout>120</keep_alive_timeout><max_concurrent_queries>0</max_concurrent_queries>
 <log-level>warning</log-level><logger><log>{home}/logs/warm.log</log><size>20M</size><count>3</count></logger>
</clickhouse>
"""
# The engine's own statement runs as `default` without a password. Its session is the only one that user may have, so nobody
# else can be `default`; were he, he could do nothing but what that statement does.
_USERS = """<clickhouse>
 <profiles><default><http_receive_timeout>{body_seconds}</http_receive_timeout></default>
  <engine><max_sessions_for_user>1</max_sessions_for_user></engine>
  <writer><async_insert>0</async_insert></writer>
  <reader><readonly>2</readonly><max_execution_time>60</max_execution_time>
   <constraints><max_execution_time><max>300</max></max_execution_time></constraints></reader>
 </profiles>
 <users>
  <default><password></password><networks><ip>{host}</ip></networks><profile>engine</profile><quota>default</quota>
   <grants><query>GRANT SYSTEM LISTEN ON *.*</query><query>GRANT CREATE TEMPORARY TABLE ON *.*</query></grants></default>
  <{writer}><password_sha256_hex>{writer_hash}</password_sha256_hex><networks><ip>{host}</ip></networks>
   <profile>writer</profile><quota>default</quota><grants>{writer_grants}</grants></{writer}>
  <{reader}><password_sha256_hex>{reader_hash}</password_sha256_hex><networks><ip>{host}</ip></networks>
   <profile>reader</profile><quota>default</quota><grants>{reader_grants}</grants></{reader}>
 </users>
 <quotas><default/></quotas>
</clickhouse>
"""
_WRITER_GRANTS = (
    "GRANT SHOW, SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP, TRUNCATE, OPTIMIZE, CHECK, SYSTEM MERGES ON k2.*",
    "GRANT TABLE ENGINE ON *",
    "GRANT SELECT ON system.*",
    "GRANT SELECT ON information_schema.*",
    "GRANT KILL QUERY ON *.*",
    "GRANT CREATE TEMPORARY TABLE ON *.*",
    "GRANT READ ON FILE",  # icebergLocal('cold/…') for the owner of the home
)


class Files:
    """Paths of one home, and the making of what they hold."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.engine = self.home / "engine"
        self.data = self.home / "warm"
        self.logs = self.home / "logs"
        self.temporary = self.engine / "tmp"
        self.identity = self.engine / "endpoint.json"
        self.start_lock = self.engine / "start.lock"
        self.supervisor_lock = self.engine / "supervisor.lock"
        self.engine_lock = self.engine / "engine.lock"
        self.supervisor_log = self.logs / "warm-supervisor.log"
        self.engine_log = self.logs / "warm.log"

    def create(self) -> None:
        """Make the folders."""
        try:
            for folder in (self.home, self.logs, self.data):
                folder.mkdir(parents=True, exist_ok=True)
            self.engine.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the warm store's folders below {self.home} cannot be made: {error}") from error

    def endpoint(self) -> Endpoint | None:
        """Return the endpoint chosen for this home; None before the first start."""
        try:
            saved = json.loads(self.identity.read_bytes())
            return Endpoint(f"http://{LOOPBACK}:{saved['port']}", WRITER, saved["password"], READER, saved["reader_password"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FatalError(
                f"{self.identity} cannot be read ({error}): remove it; the next start chooses a new port and new passwords"
            ) from error

    def port(self) -> int | None:
        """Return the port chosen for this home."""
        endpoint = self.endpoint()
        return None if endpoint is None else int(endpoint.url.rsplit(":", 1)[1])

    def choose(self, *, taken: int | None = None) -> Endpoint:
        """Choose the endpoint unless there is one; another port, with the same passwords, when `taken` is the chosen one."""
        known = self.endpoint()
        if known is not None and self.port() != taken:
            return known
        password = known.password if known is not None else secrets.token_urlsafe(24)
        reader_password = known.reader_password if known is not None else secrets.token_urlsafe(24)
        port = _free_port(zlib.crc32(str(self.home).encode()))
        write_private(self.identity, json.dumps({"port": port, "password": password, "reader_password": reader_password}) + "\n")
        chosen = self.endpoint()
        assert chosen is not None  # noqa: S101 it was written just now
        return chosen

    def write_engine_config(self, endpoint: Endpoint, memory_bytes: int) -> None:
        """Write what the engine reads at its start and empty its scratch folder: a killed engine leaves files there."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        folder = self.engine / ".clickhouse-local"  # the only place the engine takes options from
        folder.mkdir(exist_ok=True)
        grants = [*_WRITER_GRANTS], ["GRANT SELECT ON k2.*", *(f"GRANT SELECT ON system.{name}" for name in READER_SYSTEM_TABLES)]
        writer_grants, reader_grants = ("".join(f"<query>{g}</query>" for g in each) for each in grants)
        users = _USERS.format(
            host=LOOPBACK,
            body_seconds=BODY_SECONDS,
            writer=WRITER,
            writer_hash=_sha256(endpoint.password),
            writer_grants=writer_grants,
            reader=READER,
            reader_hash=_sha256(endpoint.reader_password),
            reader_grants=reader_grants,
        )
        paths = {"home": escape(str(self.home)), "engine": escape(str(self.engine))}
        write_private(self.engine / "users.xml", users)
        write_private(folder / "config.xml", _CONFIG.format(host=LOOPBACK, port=self.port(), memory=memory_bytes, **paths))

    def log_tail(self, lines: int = 12) -> str:
        """Return the last lines that supervisor and engine left, for an error message."""
        found: list[str] = []
        for path in (self.engine_log, self.supervisor_log):
            try:
                with path.open("rb") as file:
                    file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
                    found += [f"  {path.name}: {line}" for line in file.read().decode(errors="replace").splitlines()[-lines:]]
            except OSError:
                continue
        return "\n".join(found) or "  (no log was written)"


def take_lock(path: Path) -> int | None:
    """Lock a file for the life of this process and leave our id in it.

    Returns:
        The descriptor, to be kept open, or None when another process holds the lock.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(LOCK_TRIES):  # someone who only looks (`holder`) is in the way for a moment
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            sign_lock(file)
            return file
    os.close(file)
    return None


def sign_lock(file: int) -> None:
    """Leave our process id in a lock file that we hold."""
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)


def holder(path: Path) -> int | None:
    """Return the id of the process that holds a lock; None when nobody does (0 when the holder has not signed yet)."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(file, 32, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(file)
    return None


def port_is_free(port: int) -> bool:
    """Return whether we could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the engine does; else our own closed connections count
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _free_port(seed: int) -> int:
    # Seeded by the home's path: a home whose folder is made anew gets its old port, two homes get different ones.
    for step in range(PORTS):
        port = FIRST_PORT + (seed + step) % PORTS
        if port_is_free(port):
            return port
    raise FatalError(f"no port between {FIRST_PORT} and {FIRST_PORT + PORTS} is free on {LOOPBACK}")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
