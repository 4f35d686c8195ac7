"""Medians over the rounds, the tables, and whether the targets are reached."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

from .paths import ROOT
from .servers import BY_HAND, LIMIT, OURS, REFERENCE
from .setup import pinned_versions

LATENCY_AT = 1
THROUGHPUT_AT = 32
REQUESTS_RATIO_MIN, REQUESTS_RATIO_AIM = 6, 10
LATENCY_RATIO_MAX, LATENCY_RATIO_AIM = 0.3, 0.12
LIMIT_REQUESTS_RATIO_MIN, LIMIT_REQUESTS_RATIO_AIM = 0.62, 0.75
LIMIT_LATENCY_RATIO_MAX = 1.7
BY_HAND_REQUESTS_RATIO_MIN = 6
RSS_MB_MAX = 80
START_S_MAX = 0.5
INSTRUCTIONS = ("avx2", "avx512f", "avx512bw", "avx512_vbmi", "asimd")
"""Those that kernels of the forest differ in, as Linux names them."""
# What other programs may use of the machine before the figures are called disturbed.
OTHER_CORES_MAX = 0.2


def machine():
    said = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        said.setdefault(name.strip(), value.strip())
    flags = said.get("flags", said.get("Features", "")).split()
    cpu = said.get("model name", "unknown")
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": cpu,
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory_kb * 1024 / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def commit():
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip() or None


def medians(rounds):
    """One set of figures out of those of several rounds."""
    load = {}
    for count in rounds[0]["load"]:
        runs = [figures["load"][count] for figures in rounds]
        load[count] = {
            "requests_per_s": median(run["requests_per_s"] for run in runs),
            "requests_per_s_range": [
                min(run["requests_per_s"] for run in runs),
                max(run["requests_per_s"] for run in runs),
            ],
            **{
                f"{name}_us": median(run["latency_us"][name] for run in runs)
                for name in ("p50", "p90", "p99", "p99_9", "max")
            },
            "server_cores": median(run["server_cores"] for run in runs),
            "loadgen_cores": median(run["loadgen_cores"] for run in runs),
            "other_cores": median(run["other_cores"] for run in runs),
            "reconnects": sum(run["reconnects"] for run in runs),
        }
    return {
        "load": load,
        "rss_mb": median(figures["memory_mb"]["rss"] for figures in rounds),
        "pss_mb": median(figures["memory_mb"]["pss"] for figures in rounds),
        "start_s": median(figures["start_s"] for figures in rounds),
    }


def collect(chosen, rounds, failures, settings):
    versions = pinned_versions()
    measured = {
        server.name: {
            "title": server.title,
            "versions": {package: versions[package] for package in server.packages},
            "median": medians(rounds[server.name]),
            "rounds": rounds[server.name],
        }
        for server in chosen
        if rounds[server.name]
    }
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "settings": {
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "warmup_s": settings.warmup,
            "connections": settings.connections,
        },
        "servers": measured,
        "failures": failures,
        "targets": targets(measured),
    }


def targets(measured):
    """[{"target", "value", "reached"}]; without value where it was not measured."""

    def at(name, count, figure):
        load = measured[name]["median"]["load"].get(count) if name in measured else None
        return load[figure] if load else None

    def ratio(count, figure, peer=REFERENCE):
        ours, theirs = at(OURS, count, figure), at(peer, count, figure)
        return None if ours is None or not theirs else ours / theirs

    ours = measured[OURS]["median"] if OURS in measured else {}
    requests = ratio(THROUGHPUT_AT, "requests_per_s")
    latency = ratio(LATENCY_AT, "p50_us")
    limit_requests = ratio(THROUGHPUT_AT, "requests_per_s", LIMIT)
    limit_latency = ratio(LATENCY_AT, "p50_us", LIMIT)
    by_hand = ratio(THROUGHPUT_AT, "requests_per_s", BY_HAND)
    least = lambda value, bound: value is not None and value >= bound  # noqa: E731
    most = lambda value, bound: value is not None and value <= bound  # noqa: E731
    reference = "those of FastAPI + onnxruntime"
    rows = [
        (f"req/s at {THROUGHPUT_AT} connections ≥ {REQUESTS_RATIO_MIN} × {reference}",
         requests, least(requests, REQUESTS_RATIO_MIN)),
        (f"… aim: ≥ {REQUESTS_RATIO_AIM} ×", requests, least(requests, REQUESTS_RATIO_AIM)),
        (f"p50 at {LATENCY_AT} connection ≤ {LATENCY_RATIO_MAX} × {reference}",
         latency, most(latency, LATENCY_RATIO_MAX)),
        (f"… aim: ≤ {LATENCY_RATIO_AIM} ×", latency, most(latency, LATENCY_RATIO_AIM)),
        (f"req/s at {THROUGHPUT_AT} connections ≥ {LIMIT_REQUESTS_RATIO_MIN} × those of nginx with a constant",
         limit_requests, least(limit_requests, LIMIT_REQUESTS_RATIO_MIN)),
        (f"… aim: ≥ {LIMIT_REQUESTS_RATIO_AIM} ×",
         limit_requests, least(limit_requests, LIMIT_REQUESTS_RATIO_AIM)),
        (f"p50 at {LATENCY_AT} connection ≤ {LIMIT_LATENCY_RATIO_MAX} × that of nginx with a constant",
         limit_latency, most(limit_latency, LIMIT_LATENCY_RATIO_MAX)),
        (f"req/s at {THROUGHPUT_AT} connections ≥ {BY_HAND_REQUESTS_RATIO_MIN} × those of axum + ONNX Runtime",
         by_hand, least(by_hand, BY_HAND_REQUESTS_RATIO_MIN)),
        (f"resident memory ≤ {RSS_MB_MAX} MB",
         ours.get("rss_mb"), most(ours.get("rss_mb"), RSS_MB_MAX)),
        (f"start to first prediction ≤ {START_S_MAX} s",
         ours.get("start_s"), most(ours.get("start_s"), START_S_MAX)),
    ]  # fmt: skip
    return [
        {"target": target, "value": value, "reached": None if value is None else reached}
        for target, value, reached in rows
    ]


def table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figures_table(results):
    counts = results["settings"]["connections"]
    head = ["server"]
    for count in counts:
        head += [f"req/s @{count}", f"p50 µs @{count}", f"p99 µs @{count}"]
    head += ["RSS (PSS) MB", "start → first prediction s"]
    rows = []
    for server in results["servers"].values():
        found = server["median"]
        row = [server["title"]]
        for count in counts:
            load = found["load"][count]
            row += [f"{load[figure]:,.0f}" for figure in ("requests_per_s", "p50_us", "p99_us")]
        row += [f"{found['rss_mb']:,.0f} ({found['pss_mb']:,.0f})", f"{found['start_s']:.2f}"]
        rows.append(row)
    return table(head, rows)


def ratios_table(results):
    """Auspex divided by each peer."""
    counts = results["settings"]["connections"]
    ours = results["servers"][OURS]["median"]
    head = ["Auspex against"]
    for count in counts:
        head += [f"req/s @{count}", f"p50 @{count}", f"p99 @{count}"]
    head += ["RSS (PSS)", "start"]
    rows = []
    for name, server in results["servers"].items():
        if name == OURS:
            continue
        theirs = server["median"]
        row = [server["title"]]
        for count in counts:
            a, b = ours["load"][count], theirs["load"][count]
            row += [
                f"{a[figure] / b[figure]:.3g} ×"
                for figure in ("requests_per_s", "p50_us", "p99_us")
            ]
        memory = [f"{ours[kind] / theirs[kind]:.2g} ×" for kind in ("rss_mb", "pss_mb")]
        row += [f"{memory[0]} ({memory[1]})", f"{ours['start_s'] / theirs['start_s']:.2g} ×"]
        rows.append(row)
    return table(head, rows)


def cores_table(results):
    counts = results["settings"]["connections"]
    head = ["cores used: server + generator (+ others)", *(f"@{count}" for count in counts)]
    rows = []
    for server in results["servers"].values():
        loads = [server["median"]["load"][count] for count in counts]
        used = [
            "{server_cores:.2f} + {loadgen_cores:.2f} (+ {other_cores:.2f})".format(**load)
            for load in loads
        ]
        rows.append([server["title"], *used])
    return table(head, rows)


def disturbed(results):
    return any(
        load["other_cores"] > OTHER_CORES_MAX
        for server in results["servers"].values()
        for load in server["median"]["load"].values()
    )


def target_lines(results):
    lines = []
    for target in results["targets"]:
        if target["reached"] is None:
            verdict = "not measured"
        else:
            verdict = f"{'reached' if target['reached'] else 'MISSED'} ({target['value']:.3g})"
        lines.append(f"- {target['target']}: {verdict}")
    return "\n".join(lines)


def markdown(results):
    about, settings = results["machine"], results["settings"]
    parts = [
        "# Auspex and its peers",
        f"{results['when']}, commit {results['commit']}. {about['cpu']} "
        f"({', '.join(about['instructions'])}), {about['cores']} cores, "
        f"{about['memory_gb']} GB, Linux {about['kernel']}, Python {about['python']}. "
        f"Medians; rounds: {settings['rounds']}, each load {settings['seconds']:g} s after "
        f"{settings['warmup_s']:g} s of warm-up, every answer checked.",
    ]
    if disturbed(results):
        parts.append("**Other programs used this machine meanwhile: these figures say little.**")
    peers = [server for server in results["servers"].values() if server["versions"]]
    parts.append("\n".join(f"- {peer['title']}: {pins(peer)}" for peer in peers))
    if results["servers"]:
        parts.append(figures_table(results))
        if OURS in results["servers"] and len(results["servers"]) > 1:
            parts.append(ratios_table(results))
        parts.append(cores_table(results))
    for name, why in results["failures"].items():
        parts.append(f"Given up: {name}: {why}")
    parts += ["## Targets", target_lines(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def pins(peer):
    return ", ".join(f"{name} {version}" for name, version in peer["versions"].items())
