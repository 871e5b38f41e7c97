"""The gateway of examples/gateway before the benchmark's cluster, and what it costs to fetch from it with curl."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from cluster import TICKS, Cluster, Cost, Peak
from server import Server

PROGRAM = Path(os.environ.get("BULK_GATEWAY", "/var/cache/bulk/target/gateway/release/bulk-gateway"))


class Gateway(Server):
    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.first_bytes: list[float] = []  # seconds until each fetch's first byte

    def command(self) -> list:
        self.cluster.sql("create role asker login superuser password 'secret'")
        return [PROGRAM, f"127.0.0.1:{self.port}", f"host=127.0.0.1 port={self.cluster.port} dbname=postgres"]

    def fetch(self, path: str) -> Cost:
        """Gets a whole body; memory is the gateway's, processor that of curl, gateway and server together."""
        own = self.home / "pid"
        own.write_text(str(self.process.pid))
        server, gateway = self.cluster.ended_cpu(), self._cpu()
        start = time.perf_counter()
        arguments = ["-s", "-f", "-u", "asker:secret", "-o", "/dev/null", "-w", "%{time_starttransfer}"]
        client = subprocess.Popen([shutil.which("curl"), *arguments, self.host + path], stdout=subprocess.PIPE, text=True)
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
