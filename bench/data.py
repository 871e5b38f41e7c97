"""What is loaded: the real data beside the checkout, or resources like them that are made here."""

import gzip
import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass
class Source:
    """One type's file in its forms."""

    resource_type: str
    rows: int
    bytes: int  # of the plain file
    gz: Path
    plain: Path

    @property
    def table(self) -> str:
        return self.resource_type.lower()


def everything(directory: Path, files: list[Source]) -> list[Source]:
    """All types of the real data, below the directory; without them, the files that there are."""
    if not REAL.is_dir():
        return files
    known = {source.resource_type: source for source in files}
    found = []
    for path in sorted(REAL.glob("*.ndjson.gz")):
        resource_type = path.name.split(".")[0]
        gz = directory / path.name
        if resource_type not in known:
            shutil.copy(path, gz)
            with gzip.open(gz) as packed:
                lines = packed.read()
            known[resource_type] = Source(resource_type, lines.count(b"\n"), len(lines), gz, gz)
        found.append(known[resource_type])
    return found


def sources(directory: Path) -> tuple[str, list[Source]]:
    """Where the data come from, and a small-row and a large-row type."""
    real = REAL.is_dir()
    found = []
    for resource_type, make in [("Observation", observation), ("ExplanationOfBenefit", explanation_of_benefit)]:
        gz, plain = directory / f"{resource_type}.ndjson.gz", directory / f"{resource_type}.ndjson"
        if real:
            shutil.copy(REAL / gz.name, gz)
        else:
            rng = random.Random(resource_type)
            with gzip.open(gz, "wt", 6) as out:
                for number in range(90_000 if make is observation else 18_000):
                    out.write(json.dumps(make(rng, number), separators=(",", ":")) + "\n")
        rows = 0
        with gzip.open(gz) as packed, open(plain, "wb") as out:
            for line in packed:
                out.write(line)
                rows += 1
        found.append(Source(resource_type, rows, plain.stat().st_size, gz, plain))
    return ("Synthea" if real else "made by the benchmark"), found


def identifier(rng: random.Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def observation(rng: random.Random, number: int) -> dict:
    time = f"20{rng.randint(10, 25)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}T08:26:10+01:00"
    category = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs", "display": "vital-signs"}
    return {
        "resourceType": "Observation",
        "id": identifier(rng),
        "status": "final",
        "category": [{"coding": [category]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": f"{number % 400}-8", "display": "Body Height"}], "text": "Body Height"},
        "subject": {"reference": f"Patient/{identifier(rng)}"},
        "encounter": {"reference": f"Encounter/{identifier(rng)}"},
        "effectiveDateTime": time,
        "issued": time.replace("+", ".123+"),
        "valueQuantity": {"value": round(rng.uniform(1, 200), 4), "unit": "cm", "system": "http://unitsofmeasure.org", "code": "cm"},
    }


def explanation_of_benefit(rng: random.Random, number: int) -> dict:
    amount = lambda: {"value": round(rng.uniform(1, 5000), 2), "currency": "USD"}  # noqa: E731
    concept = lambda code: {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/ex-claimtype", "code": code}]}  # noqa: E731
    item = lambda sequence: {  # noqa: E731
        "sequence": sequence,
        "productOrService": concept(str(rng.randint(1, 10**9))),
        "servicedPeriod": {"start": "2015-04-11T08:26:10+01:00", "end": "2015-04-11T08:41:10+01:00"},
        "adjudication": [{"category": concept(code), "amount": amount()} for code in ("submitted", "eligible", "benefit", "deductible")],
    }
    return {
        "resourceType": "ExplanationOfBenefit",
        "id": identifier(rng),
        "status": "active",
        "type": concept("institutional"),
        "use": "claim",
        "patient": {"reference": f"Patient/{identifier(rng)}"},
        "created": "2015-04-11T08:41:10+01:00",
        "insurer": {"display": "Humana"},
        "provider": {"reference": f"Practitioner/{identifier(rng)}"},
        "outcome": "complete",
        "insurance": [{"focal": True, "coverage": {"display": "Humana"}}],
        "item": [item(sequence) for sequence in range(1, rng.randint(2, 12))],
        "total": [{"category": concept("submitted"), "amount": amount()}],
        "payment": {"amount": amount()},
    }
