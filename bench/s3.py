"""An S3 server on the loopback whose one bucket is a directory's copy."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAM = Path(os.environ.get("BULK_CACHE", "/var/cache/bulk")) / "s3s-fs/bin/s3s-fs"


class S3:
    """Started by entering it, ended with it."""

    def __init__(self, files: list[Path]):
        self.files = files

    def __enter__(self):
        self.home = tempfile.TemporaryDirectory(prefix="bulk-bench-s3-", dir="/tmp")
        bucket = Path(self.home.name) / "bucket"
        bucket.mkdir()
        for file in self.files:
            shutil.copy(file, bucket)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [PROGRAM, "--host", "127.0.0.1", "--port", str(self.port), "--access-key", "KEY", "--secret-key", "SECRET", self.home.name]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.01)
        raise RuntimeError("the S3 server does not answer")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.home.cleanup()

    @property
    def bucket(self) -> Path:
        """Where the objects lie as files."""
        return Path(self.home.name) / "bucket"

    @property
    def params(self) -> dict:
        """What names the bucket in a call."""
        account = {"access-key-id": "KEY", "secret-access-key": "SECRET", "region": "us-east-1", "host": f"http://127.0.0.1:{self.port}"}
        return {"bucket": "s3://bucket", "account": account}
