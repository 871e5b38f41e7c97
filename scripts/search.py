#!/usr/bin/env python3
"""search.py PACKAGE DEFINITIONS OUT: the official search parameters and the patient compartment as a table of facts.

PACKAGE is the unpacked npm package hl7.fhir.<version>.examples, DEFINITIONS the table that definitions.py made of it.
The table has a line a parameter of a type, fields parted by tabs:

    Patient      email        token        telecom*[system=email]:ContactPoint
    Observation  patient      reference    subject:Reference(Patient)
    Observation  patient      compartment  subject:Reference(Patient)  performer*:Reference(Patient)
    type         code         kind         path...

A path is made of keys as FHIR's JSON has them, * behind those of lists, with the type of what is at its end. What stands
in brackets is the value of a member. In parentheses stands the one type of resource that counts where several may be
referred to. Only what can be said so is there, of the kinds token, date, reference and string.
"""
import json
import os
import re
import sys

KINDS = ("token", "date", "reference", "string")
PATH = re.compile(r"([A-Za-z]+)((?:\.[A-Za-z]+)+)(?:\.as\(([A-Za-z]+)\)| as ([A-Za-z]+))?"
                  r"(?:\.where\((?:resolve\(\) is ([A-Za-z]+)|([a-z]+)='([^']+)')\))?((?:\.[A-Za-z]+)*)")


def read(package, name):
    with open(os.path.join(package, name), encoding="utf-8-sig") as source:
        return json.load(source)


def shapes(path):
    """Of each shape its elements by name: (choice, list, types), with those that it inherits."""
    rows = {}
    with open(path, encoding="utf-8") as table:
        for line in table:
            if line.startswith("#"):
                continue
            path, kind, base, *fields = line.rstrip("\n").split("\t")
            elements = {}
            for field in fields if kind != "primitive" else []:
                head, types = field.split(":", 1)
                name = re.match(r"[A-Za-z0-9]+", head).group()
                elements[name] = ("[x]" in head, head[-1] in "*+", types.split("|"))
            rows[path] = (base, elements)
    found = {}
    for path in rows:
        elements, at = {}, path
        while at in rows:
            elements = {**rows[at][1], **elements}
            at = rows[at][0]
        found[path] = elements
    return found


def key(name, kind):
    return name + kind[0].upper() + kind[1:]


def paths(known, expression):
    """The type and the paths of one alternative of an expression; None for what the table cannot say."""
    match = PATH.fullmatch(expression.strip().removeprefix("(").replace(")", "", 1) if expression.strip().startswith("(") else expression.strip())
    if not match:
        return None
    owner, steps, as_call, as_word, target, member, value, rest = match.groups()
    if owner not in known:
        return None
    wanted = as_call or as_word
    before, after = steps.split(".")[1:], rest.split(".")[1:]
    at, made = [(owner, "")], []
    for index, name in enumerate(before + after):
        following = []
        for shape, text in at:
            if name not in known.get(shape, {}):
                return None
            choice, many, types = known[shape][name]
            is_last = index == len(before) - 1
            if choice and is_last and wanted:
                types = [kind for kind in types if kind == wanted]
            for kind in types:
                step = (key(name, kind) if choice else name) + ("*" if many else "")
                if is_last and member:
                    step += f"[{member}={value}]"
                following.append((kind.lstrip("@"), f"{text}.{step}" if text else step))
        at = following
    for kind, text in at:
        if kind == "Resource":
            return None
        made.append(f"{text}:{kind}" + (f"({target})" if target else ""))
    return owner, made


package, definitions, out = sys.argv[1:]
known = shapes(definitions)
table, left = {}, []
for entry in read(package, "Bundle-searchParams.json")["entry"]:
    parameter = entry["resource"]
    if parameter["type"] not in KINDS:
        continue
    for alternative in parameter.get("expression", "").split("|"):
        if re.fullmatch(r"\s*[a-z]+\s*", alternative) and len(parameter["base"]) == 1:
            alternative = f"{parameter['base'][0]}.{alternative.strip()}"
        found = paths(known, alternative)
        if found is None:
            left.append((parameter["code"], alternative.strip()))
        else:
            line = table.setdefault((found[0], parameter["code"], parameter["type"]), [])
            line.extend(path for path in found[1] if path not in line)
for member in read(package, "CompartmentDefinition-patient.json")["resource"]:
    for code in member.get("param", []):
        for path in table[(member["code"], code, "reference")]:
            kind = path.split(":")[1]
            if kind in ("Reference", "Reference(Patient)"):
                line = table.setdefault((member["code"], "patient", "compartment"), [])
                if path.replace("(Patient)", "") not in [known_path.replace("(Patient)", "") for known_path in line]:
                    line.append(path.split(":")[0] + ":Reference(Patient)")
print({"parameters": len(table), "left out": left}, file=sys.stderr)
assert sum(kind == "compartment" for _, _, kind in table) == 66
with open(out, "w", encoding="utf-8", newline="\n") as target:
    target.write("# Made by scripts/search.py, which describes the notation; not to be edited.\n")
    for (owner, code, kind), found in sorted(table.items()):
        target.write("\t".join([owner, code, kind, *found]) + "\n")
