#!/usr/bin/env python3
"""The official examples as gzipped NDJSON, a resource a line.

    examples.py PACKAGE OUT               all of them in one file
    examples.py PACKAGE --types DIRECTORY  a file for each of the types below, for the demo

A JSON string holds no raw line break, so a document with its line breaks taken out is the same document: every literal stays as its
authors wrote it (a decimal's zeros, escapes, spacing). The examples are published by HL7 under CC0."""
import gzip
import json
import os
import sys

# What a hospital exchanges: the demo loads and shows these.
TYPES = (
    "AllergyIntolerance Appointment CarePlan CareTeam Claim Condition Coverage Device DiagnosticReport DocumentReference Encounter "
    "ExplanationOfBenefit Goal Group Immunization Location Medication MedicationRequest MedicationStatement Observation Organization "
    "Patient Practitioner PractitionerRole Procedure Questionnaire QuestionnaireResponse RelatedPerson ServiceRequest Specimen"
).split()


def resources(package):
    """Type and line of each resource, in the order of the files' names."""
    seen = set()
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
        yield key[0], text.replace("\r", "").replace("\n", "") + "\n"


def write(path, lines, level):
    """The same bytes whenever it is written: without a name and a time in the header."""
    with open(path, "wb") as file, gzip.GzipFile("", "wb", level, file, 0) as packed:
        packed.write("".join(lines).encode())


package, *out = sys.argv[1:]
if out[0] == "--types":
    by_type = {kind: [] for kind in TYPES}
    for kind, line in resources(package):
        if kind in by_type:
            by_type[kind].append(line)
    for kind, lines in by_type.items():
        write(os.path.join(out[1], f"{kind}.ndjson.gz"), lines, 9)
    print(f"{sum(map(len, by_type.values()))} resources of {len(TYPES)} types", file=sys.stderr)
else:
    found = list(resources(package))
    write(out[0], (line for _, line in found), 6)
    print(f"{len(found)} resources of {len({kind for kind, _ in found})} types", file=sys.stderr)
