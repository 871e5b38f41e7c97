"""What a run found: as text, as JSON, as a Markdown table, as a chart."""

import json
from dataclasses import asdict

import contests as names
from contest import Contest, Standing


def floors(found: list[Contest], gzip: tuple[int, int] | None) -> list[tuple[str, float, float]]:
    """(what, measured, least) of every ratio that the project promises."""
    rows = []
    for contest in found:
        has = {standing.name for standing in contest.standings}
        seconds = contest.seconds
        if names.LIMIT in has:
            rows.append((f"{contest.name}: against {names.READY}", seconds(names.READY) / seconds(names.LOAD), 2.0))
            rows.append((f"{contest.name}: of the insert-only limit", seconds(names.LIMIT) / seconds(names.LOAD), 0.85))
            rows.append((f"{contest.name}: without and with validation", seconds(names.LOAD) / seconds(names.VALIDATED), 0.5))
            wal = {standing.name: standing.median("wal") for standing in contest.standings}
            rows.append((f"{contest.name}: WAL of COPY and of ours", wal[names.READY] / wal[names.LOAD], 0.95))
        if names.STAGE in has:
            rows.append((contest.name, seconds(names.STAGE) / seconds(names.LOAD), 1.5))
        if names.MERGED in has and "Observation" in contest.name:
            rows.append((contest.name, seconds(names.MERGED) / seconds(names.DUMP), 3.0))
            rows.append((f"{contest.name}: FHIR against Aidbox", seconds(names.DUMP) / seconds(names.DUMP_FHIR), 0.8))
        if names.BARE in has and "Observation" in contest.name:
            rows.append((contest.name, seconds(names.BARE) / seconds(names.BYTES), 1.2))
            rows.append((f"{contest.name}: FHIR against Aidbox", seconds(names.BYTES) / seconds(names.BYTES_FHIR), 0.8))
        if names.IMPORT in has:
            cpu = {standing.name: standing.median("cpu_seconds") for standing in contest.standings}
            rows.append((f"{contest.name}: time of {names.LOADS} and of ours", seconds(names.LOADS) / seconds(names.IMPORT), 1 / 1.15))
            rows.append((f"{contest.name}: processor of {names.LOADS} and of ours", cpu[names.LOADS] / cpu[names.IMPORT], 1 / 1.15))
        if names.BUCKET in has:
            rows.append((contest.name, seconds(names.FROM_DISK) / seconds(names.BUCKET), 0.9))
        if names.EXPORT in has:
            rows.append((contest.name, seconds(names.TO_GZIP) / seconds(names.EXPORT), 1 / 0.8))
            size = {standing.name: standing.size for standing in contest.standings}
            rows.append((f"{contest.name}: size of gzip -1 against ours", size[names.TO_GZIP] / size[names.EXPORT], 1 / 1.05))
        if names.GATEWAY in has:
            for way in (names.PSQL, names.PSQL_BINARY):
                rows.append((f"{contest.name}: against {way}", seconds(way) / seconds(names.GATEWAY), 0.7))
        if names.QUERY in has:
            rows.append((contest.name, seconds(names.COPY_QUERY) / seconds(names.QUERY), 0.9))
    if gzip:
        ours, theirs = gzip
        rows.append(("size of gzip -1 against ours", theirs / ours, 1 / 1.05))
    return rows


def floors_text(rows: list[tuple[str, float, float]]) -> str:
    lines = [f"{value:6.2f}  (floor {least:4.2f}{'' if value >= least else ', MISSED'})  {what}" for what, value, least in rows]
    return "\n".join(lines)


def figures(contest: Contest, standing: Standing) -> list[str]:
    seconds = standing.seconds
    return [
        f"{seconds:.2f}",
        f"{contest.ratio(standing):.2f}",
        f"{contest.rows / seconds:,.0f}",
        f"{contest.bytes / seconds / 1e6:.0f}",
        f"{standing.median('cpu_seconds') / contest.bytes * 1e9:.1f}",
        f"{max(cost.memory for cost in standing.costs) / 2**20:.0f}",
        f"{standing.median('wal') / 1e6:.0f}",
        f"{standing.size / 1e6:.0f}" if standing.size else "",
    ]


HEADS = ["s", "ratio", "rows/s", "MB/s", "CPU s/GB", "peak MiB", "WAL MB", "size MB"]


def markdown(found: list[Contest], about: dict) -> str:
    lines = [f"{about['date']}, {about['machine']}, {about['postgres']}, data: {about['data']}, medians of {about['rounds']} rounds.", ""]
    for contest in found:
        lines += [f"**{contest.name}** ({contest.rows:,} rows, {contest.bytes / 1e6:.0f} MB of NDJSON)", ""]
        lines += ["| | " + " | ".join(HEADS) + " |", "|---|" + "--:|" * len(HEADS)]
        for standing in contest.standings:
            name = standing.name.replace("|", "\\|")
            lines.append(f"| {name} | " + " | ".join(figures(contest, standing)) + " |")
        lines.append("")
    return "\n".join(lines)


def as_json(found: list[Contest], about: dict, rows: list[tuple[str, float, float]]) -> str:
    runs = [{**asdict(contest), "ratios": {s.name: contest.ratio(s) for s in contest.standings}} for contest in found]
    promised = [{"what": what, "measured": value, "floor": least} for what, value, least in rows]
    return json.dumps({"about": about, "contests": runs, "floors": promised}, indent=1)


def chart(found: list[Contest], about: dict, stem):
    """Bars of throughput, a panel a contest, ours in another colour; `stem`.svg and `stem`.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "bulk"
    heights = [len(contest.standings) + 1.2 for contest in found]
    figure, panels = plt.subplots(len(found), 1, figsize=(10, 0.32 * sum(heights)), height_ratios=heights, layout="constrained")
    for contest, panel in zip(found, panels):
        labels = [standing.name for standing in contest.standings]
        speeds = [contest.bytes / standing.seconds / 1e6 for standing in contest.standings]
        colours = ["#2a6f97" if label.startswith("bulk") else "#b8bfc6" for label in labels]
        bars = panel.barh(labels, speeds, color=colours)
        panel.bar_label(bars, [f"{contest.ratio(standing):.1f}×" for standing in contest.standings], padding=3, fontsize=8)
        panel.invert_yaxis()
        panel.set_title(contest.name, loc="left", fontsize=9, fontweight="bold")
        panel.tick_params(labelsize=8)
        panel.margins(x=0.1)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("MB of NDJSON a second; × is against the first bar of each panel", fontsize=8)
    figure.suptitle(f"{about['date']}, {about['machine']}, {about['postgres']}", fontsize=9)
    stem.parent.mkdir(parents=True, exist_ok=True)
    for kind in ("svg", "png"):
        figure.savefig(f"{stem}.{kind}", dpi=110, metadata={"Date": None} if kind == "svg" else None)
