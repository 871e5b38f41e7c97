"""Measures bulk against what people use today, in one run on a cluster of its own: python bench --help."""

import argparse
import datetime
import os
import platform
import sys
import tempfile
from pathlib import Path

import report
from cluster import Cluster
from contests import Bench
from data import everything, sources
from gateway import Gateway
from s3 import S3
from web import Web


def machine() -> str:
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB"


def main():
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("binaries", type=Path, help="directory of the PostgreSQL programs, with the extension installed")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each contest (default 5)")
    parser.add_argument("--only", default="", help="part of the names of the contests to hold: load, upsert, dump, import, bucket, export, http, a type, a method")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of tables")
    parser.add_argument("--chart", type=Path, help="where to draw the chart: this name with .svg and .png")
    options = parser.parse_args()

    def say(line: str):
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="bulk-bench-data-", dir="/tmp") as name, Cluster(options.binaries) as cluster:
        directory = Path(name)
        directory.chmod(0o755)
        origin, files = sources(directory)
        bench = Bench(cluster, directory, options.rounds, say)
        plan = [(f"{what} {source.resource_type} {method}", what, source, method)
                for what in ("load", "upsert", "dump") for source in files
                for method in (("lz4", "pglz") if what != "dump" else ("lz4",))]
        found, gzip = [], None
        for label, what, source, method in plan:
            if options.only in label:
                held = getattr(bench, what)(source, method)
                found += held if isinstance(held, list) else [held]
                if what == "dump":
                    gzip = gzip or bench.gzip_sizes(source)
        if options.only in "import":
            with Web(directory) as web:
                found.append(bench.imports(everything(directory, files), web))
        if options.only in "bucket":
            files = everything(directory, files)
            with S3([source.gz for source in files]) as s3:
                found.append(bench.bucket(files, s3))
        if options.only in "export":
            files = everything(directory, files)
            with S3([]) as s3:
                found.append(bench.export(files, s3))
        if options.only in "http":
            with Gateway(cluster) as gateway:
                found.append(bench.http(next(source for source in files if source.resource_type == "Observation"), gateway))
        about = {
            "date": datetime.date.today().isoformat(), "machine": machine(), "rounds": options.rounds, "data": origin,
            "postgres": "PostgreSQL " + cluster.sql("select current_setting('server_version')").split(" ")[0],
        }
    floors = report.floors(found, gzip)
    print(report.as_json(found, about, floors) if options.json else report.markdown(found, about))
    say(report.floors_text(floors))
    if options.chart:
        report.chart(found, about, options.chart)


main()
