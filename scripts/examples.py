#!/usr/bin/env python3
"""examples.py PACKAGE OUT: the official examples as one gzipped NDJSON file, a resource a line.

A JSON string holds no raw line break, so a document with its line breaks taken out is the same
document: every literal stays as its authors wrote it (a decimal's zeros, escapes, spacing)."""
import gzip
import json
import os
import sys

package, out = sys.argv[1:]
seen = set()
with gzip.open(out, "wt", encoding="utf-8", newline="\n", compresslevel=6) as lines:
    for name in sorted(os.listdir(package)):
        if not name.endswith(".json"):
            continue
        with open(os.path.join(package, name), encoding="utf-8-sig", newline="") as source:
            text = source.read()
        resource = json.loads(text)
        key = (resource.get("resourceType"), resource.get("id"))
        # package.json is no resource, and one resource is there under two file names.
        if key[0] is None or key in seen:
            continue
        seen.add(key)
        lines.write(text.replace("\r", "").replace("\n", "") + "\n")
print(f"{len(seen)} resources of {len({kind for kind, _ in seen})} types", file=sys.stderr)
