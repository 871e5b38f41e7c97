"""What a person writes with psycopg: python psycopg_copy.py ADDRESS BEFORE AFTER TABLE FILE."""

import gzip
import json
import sys
from pathlib import Path

import psycopg

address, before, after, table, file = sys.argv[1:]
with psycopg.connect(address) as connection:
    Path(before).write_text(str(connection.info.backend_pid))
    with gzip.open(file) as lines, connection.cursor() as cursor:
        with cursor.copy(f"copy {table} (id, txid, resource_type, status, resource) from stdin") as copy:
            for line in lines:
                resource = json.loads(line)
                copy.write_row((resource.pop("id"), 1, resource.pop("resourceType"), "created", json.dumps(resource)))
    connection.commit()
    Path(after).write_text(connection.execute("select pg_read_file('/proc/self/stat')").fetchone()[0])
