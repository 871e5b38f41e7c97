"""What a person writes: NDJSON on stdin to rows for COPY on stdout."""

import json
import sys

for line in sys.stdin:
    resource = json.loads(line)
    key, kind = resource.pop("id"), resource.pop("resourceType")
    text = json.dumps(resource).replace("\\", "\\\\")
    print(key, 1, kind, "created", text, sep="\t")
