#!/usr/bin/env python3
"""Verifies the hashes of usage reports, without vingt:

    kubectl get usagereports -o json | python3 verify_reports.py

Prints what is wrong and ends with 1, or prints the head of the chain. The sums are left to `kubectl vingt attest`.
"""
import hashlib
import json
import sys

CLASSES = ["standard", "sme", "sovereign", "security"]
BASES = ["ordinary", "claimed", "ordered"]


def text(value):
    data = str(value).encode()
    return b"%d:%s," % (len(data), data)


def fields(*values):
    return b"".join(map(text, values))


def each(values, write=text):
    return text(len(values)) + b"".join(map(write, values))


def maybe(value, write=text):
    return text(0) if value is None else text(1) + write(value)


def line(of):
    right = fields(of["profile"], of["class"], of["basis"]) + maybe(of.get("reserve"))
    return right + fields(of["unitMs"], of.get("creditedUnitMs", 0))


def line_order(of):
    rank = (CLASSES.index(of["class"]), BASES.index(of["basis"]))
    return (of["profile"].encode(), *rank, (of.get("reserve") or "").encode())


def derivation(of):
    return fields(*(of[k] for k in ("purchaseMicros", "lifeHours", "powerWatts", "overheadPercent", "energyPerKWhMicros")))


def price(of):
    profiles = sorted(of.get("profileMicros", {}).items(), key=lambda item: item[0].encode())
    plan = fields(of["currency"], of["perGPUHourMicros"]) + each(profiles, lambda item: fields(*item))
    return plan + maybe(of.get("derivation"), derivation)


def pool(of):
    installed = sorted(of["installed"], key=lambda part: part["fractionPpm"])
    claims = [of["claims"][k] for k in ("made", "late", "slowestMs")]
    orders = [of["orders"][k] for k in ("accepted", "countered", "refused", "late")]
    return (
        fields(of["asOfMs"], of["units"], of["fractionPpm"])
        + each(installed, lambda part: fields(part["fractionPpm"], part["unitMs"]))
        + fields(of["maintenance"], of["heldMs"], of["notHeldMs"], *claims, *orders, of["evictions"], of["lost"])
        + each(of["crises"], lambda c: fields(c["fromMs"], c["untilMs"], c["fractionPpm"], c["reason"]))
    )


def canonical(of):
    subject = of["subject"]
    return (
        fields(f"vingt.dev/usage-report/{of['version']}", subject["kind"], subject["name"], of["month"])
        + maybe(of.get("sealedMs"))
        + each(sorted(of["lines"], key=line_order), line)
        + each(sorted(of.get("settled", []), key=str.encode))
        + each(sorted(of.get("carried", []), key=str.encode))
        + text(of.get("endedByRule", 0))
        + maybe(of.get("price"), price)
        + maybe(of.get("pool"), pool)
        + text(of.get("previous", ""))
    )


def main():
    reports = [item["spec"] for item in json.load(sys.stdin)["items"]]
    reports.sort(key=lambda r: (r["month"], r["subject"]["kind"] == "reserve", r["subject"]["name"].encode()))
    wrong, head = 0, None
    for report in reports:
        name = f"{report['subject']['kind']} {report['subject']['name']} {report['month']}"
        if hashlib.sha256(canonical(report)).hexdigest() != report["hash"]:
            wrong += 1
            print(f"{name}: the hash is not that of its contents")
        if report.get("sealedMs") is not None:
            if head is not None and report.get("previous", "") != head["hash"]:
                wrong += 1
                print(f"{name}: previous is not the hash of the report before it")
            head = report
    if wrong or head is None:
        sys.exit(1)
    print(head["hash"])


main()
