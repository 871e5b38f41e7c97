"""An S3 server on the loopback whose one bucket is a directory's copy."""

import os
import shutil
from pathlib import Path

from server import Server

PROGRAM = Path(os.environ.get("BULK_CACHE", "/var/cache/bulk")) / "s3s-fs/bin/s3s-fs"


class S3(Server):
    def __init__(self, files: list[Path]):
        self.files = files

    def command(self) -> list:
        self.bucket.mkdir()
        for file in self.files:
            shutil.copy(file, self.bucket)
        return [PROGRAM, "--host", "127.0.0.1", "--port", str(self.port), "--access-key", "KEY", "--secret-key", "SECRET", self.home]

    @property
    def bucket(self) -> Path:
        """Where the objects lie as files."""
        return self.home / "bucket"

    @property
    def params(self) -> dict:
        """What names the bucket in a call."""
        account = {"access-key-id": "KEY", "secret-access-key": "SECRET", "region": "us-east-1", "host": self.host}
        return {"bucket": "s3://bucket", "account": account}
