"""The gateway of examples/gateway before the benchmark's cluster, and what it costs to fetch from it with curl."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from cluster import TICKS, Cluster, Cost, Peak

PROGRAM = Path(os.environ.get("CARGO_TARGET_DIR", "/var/cache/bulk/target")) / "release/bulk-gateway"


class Gateway:
    """Started by entering it, ended with it."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.first_bytes: list[float] = []  # seconds until each fetch's first byte

    def __enter__(self):
        self.cluster.sql("create role asker login superuser password 'secret'")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.home = tempfile.TemporaryDirectory(prefix="bulk-bench-gateway-", dir="/tmp")
        self.process = subprocess.Popen([PROGRAM, f"127.0.0.1:{self.port}", f"host=127.0.0.1 port={self.cluster.port} dbname=postgres"])
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.01)
        raise RuntimeError("the gateway does not answer")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.home.cleanup()

    def fetch(self, path: str) -> Cost:
        """Gets a whole body; memory is the gateway's, processor that of curl, gateway and server together."""
        own = Path(self.home.name) / "pid"
        own.write_text(str(self.process.pid))
        server, gateway = self.cluster.ended_cpu(), self._cpu()
        start = time.perf_counter()
        arguments = ["-s", "-f", "-u", "asker:secret", "-o", "/dev/null", "-w", "%{time_starttransfer}"]
        client = subprocess.Popen([shutil.which("curl"), *arguments, f"http://127.0.0.1:{self.port}{path}"], stdout=subprocess.PIPE, text=True)
        with Peak(own) as peak:
            said = client.stdout.read()
            _, status, usage = os.wait4(client.pid, 0)
            seconds = time.perf_counter() - start
        client.returncode = os.waitstatus_to_exitcode(status)
        if client.returncode != 0:
            raise RuntimeError(f"curl ended with {client.returncode}")
        self.first_bytes.append(float(said))
        used = self.cluster.ended_cpu() - server + self._cpu() - gateway
        return Cost(seconds, usage.ru_utime + usage.ru_stime + used, peak.bytes, 0)

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
