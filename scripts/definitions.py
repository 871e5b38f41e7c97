#!/usr/bin/env python3
"""definitions.py PACKAGE VERSION OUT: the official FHIR definitions as a table of facts.

PACKAGE is the unpacked npm package hl7.fhir.<version>.examples (it carries the complete definitions).
The table has a line a shape (a resource, a data type, a backbone element), fields parted by tabs:

    Patient  resource  DomainResource  identifier*:Identifier  active?:boolean  deceased[x]?:boolean|dateTime  ...
    path     kind      base            element...

Kinds: resource, complex, primitive, backbone, abstract. A primitive has its pattern instead of elements. An
element is its name, its cardinality (nothing 1..1, ? 0..1, * 0..*, + 1..*, else {min,max}), a colon and its
types; @Path is a backbone element of that path. Inherited elements stand with the base only. The order is that of the
names, so the same definitions give the same bytes.
"""
import json
import os
import sys

CARDINALITY = {(0, "1"): "?", (1, "1"): "", (0, "*"): "*", (1, "*"): "+"}
REGEX = "http://hl7.org/fhir/StructureDefinition/regex"


def structures(package):
    """Every definition of a type (not the profiles on them), and how many definitions there are in all."""
    found = []
    total = 0
    for bundle in ("Bundle-types.json", "Bundle-resources.json"):
        with open(os.path.join(package, bundle), encoding="utf-8-sig") as source:
            for entry in json.load(source)["entry"]:
                resource = entry["resource"]
                if resource["resourceType"] != "StructureDefinition":
                    continue
                total += 1
                if resource.get("derivation") != "constraint":
                    found.append(resource)
    return found, total


def type_code(kind):
    """A type's name; the FHIRPath system types of ids and urls are strings in JSON."""
    code = kind["code"]
    return "string" if code.startswith("http://hl7.org/fhirpath/") else code


def element(definition):
    """One element of a shape in the notation above."""
    path = definition["path"]
    name = path.rsplit(".", 1)[1]
    bounds = (definition["min"], definition["max"])
    sign = CARDINALITY.get(bounds, "{%d,%s}" % bounds)
    if "contentReference" in definition:
        types = ["@" + definition["contentReference"].rsplit("#", 1)[1]]
    else:
        types = sorted({type_code(kind) for kind in definition["type"]})
        if types in (["BackboneElement"], ["Element"]):
            types = ["@" + path]
    return f"{name}{sign}:{'|'.join(types)}"


def shapes(structure):
    """The lines of one definition: its own, then one for each backbone element inside."""
    name, kind = structure["name"], structure["kind"]
    elements = structure["snapshot"]["element"]
    base = structure.get("baseDefinition", "").rsplit("/", 1)[-1]
    if kind == "primitive-type":
        value = next(e for e in elements if e["path"] == name + ".value")
        patterns = [x["valueString"] for t in value["type"] for x in t.get("extension", []) if x["url"] == REGEX]
        yield name, ["primitive", base, patterns[0] if patterns else ""]
        return
    word = "abstract" if structure["abstract"] else {"resource": "resource", "complex-type": "complex"}[kind]
    inside = {name: [word, base]}
    for definition in elements[1:]:
        parent = definition["path"].rsplit(".", 1)[0]
        if parent not in inside:
            owner = next(e for e in elements if e["path"] == parent)
            inside[parent] = ["backbone", owner["type"][0]["code"]]
        # What a base defines stands there.
        if definition["base"]["path"] == definition["path"]:
            inside[parent].append(element(definition))
    for path, fields in inside.items():
        yield path, fields[:2] + sorted(fields[2:])


package, version, out = sys.argv[1:]
found, total = structures(package)
snapshot = [element for structure in found for element in structure["snapshot"]["element"]]
facts = {
    "definitions": total,
    "resources": sum(structure["kind"] == "resource" and not structure["abstract"] for structure in found),
    "elements": len(snapshot),
    "repeating": sum(element["max"] == "*" for element in snapshot),
    "choices": sum(element["path"].endswith("[x]") for element in snapshot),
}
print(facts, file=sys.stderr)
if version == "4.0.1":
    assert list(facts.values()) == [212, 146, 7696, 3153, 186]
lines = sorted(line for structure in found if structure["kind"] != "logical" for line in shapes(structure))
with open(out, "w", encoding="utf-8", newline="\n") as table:
    table.write(f"# FHIR {version}: made by scripts/definitions.py, which describes the notation; not to be edited.\n")
    for path, fields in lines:
        table.write("\t".join([path, *fields]) + "\n")
