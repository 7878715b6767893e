"""What a target claims and whether it is kept: pure renderers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nixpatch.escape import shown
from nixpatch.installed.manylinux_module import Maker, Switch
from nixpatch.installed.manylinux_parser import FUNCTION
from nixpatch.model.manylinux import Promise
from nixpatch.operations.manylinux import Claim, Written
from nixpatch.report.as_json import document, target_entry, tree_entry
from nixpatch.resolve.provider_choice import version_text

_YES_NO = {True: "yes", False: "no", None: "?"}


def text(claim: Claim, promises: Sequence[Promise], *, verbose: bool) -> str:
    """Render for people: what is claimed and why, then one line for each policy, the newest first."""
    target = claim.target
    version = f" {version_text(target.libc_version)}" if target.libc_version else ""
    what = f"{target.machine.name}, {target.libc.value}{version}"
    lines = [f"Python: {shown(target.python)} (found by {target.found_by}), {what}"]
    lines += _switches(claim)
    lines.append(_tags(claim))
    lines.append("")
    within = [one for one in reversed(promises) if target.libc_version >= one.policy.glibc]
    rows = [("policy", "claimed", "kept")]
    for one in within:
        told = one.broken if verbose else one.broken[:1]
        more = f" (and {len(one.broken) - len(told)} more)" if len(one.broken) > len(told) else ""
        kept = "yes" if one.kept else f"no: {shown(told[0])}{more}"
        rows.append((one.policy.title, _YES_NO[one.claimed], kept))
        rows += [("", "", f"    {shown(line)}") for line in told[1:]]
    width = max(len(row[0]) for row in rows)
    lines += [f"{row[0]:{width}}  {row[1]:7}  {row[2]}".rstrip() for row in rows if within]
    beyond = len(promises) - len(within)
    if beyond:
        lines.append(f"{beyond} later policies are neither claimed nor kept: they need a newer glibc.")
    return "\n".join(lines) + "\n"


def json(claim: Claim, promises: Sequence[Promise]) -> dict[str, Any]:
    """Render the document programs read."""
    entry = {
        "tree": tree_entry(claim.tree),
        "target": target_entry(claim.target),
        "tags": list(claim.tags),
        "modules": [
            {
                "path": switch.path,
                "place": switch.place.what,
                "maker": switch.maker.name.lower(),
                "mode": switch.mode or None,
                "attributes": dict(switch.answers.attributes),
                "function": switch.answers.function is not None,
                "computed": switch.answers.computed or None,
            }
            for switch in claim.switches
        ],
        "policies": [
            {
                "name": one.policy.name,
                "alias": one.policy.alias or None,
                "source": one.policy.source,
                "claimed": one.claimed,
                "kept": one.kept,
                "broken": list(one.broken),
            }
            for one in promises
        ],
    }
    return document("manylinux", [entry])


def written(done: Written, mode: str) -> list[str]:
    """Render what was written, and what stands in its way."""
    lines = [f"{shown(done.path)}: written ({mode})"]
    if mode == "honest":
        kept = f"manylinux_{done.limit[0]}_{done.limit[1]} and all below" if done.limit else "no policy"
        lines[0] = f"{shown(done.path)}: written (honest): {kept}"
    if done.shadowed_by is not None:
        other = done.shadowed_by
        lines.append(
            f"{shown(other.path)} ({other.place.what}) is imported instead; "
            "PYTHONPATH with the directory of ours before the installer's command goes before it"
        )
    lines.append("pip reads it at every run; uv keeps what a Python once said: run it once with --refresh")
    return lines


def _switches(claim: Claim) -> list[str]:
    if claim.switch is None:
        return ["_manylinux: none on its path, so the version of glibc alone decides"]
    lines = []
    for number, switch in enumerate(claim.switches):
        late = "" if number == 0 else "; not imported, the one before it is"
        mode = f" {switch.mode}" if switch.maker is Maker.OURS else ""
        lines.append(
            f"_manylinux: {shown(switch.path)} ({switch.place.what}), {switch.maker.value}{shown(mode)}{late}"
        )
        if switch.maker is not Maker.OURS:
            lines.append(f"  {shown(_says(switch))}")
    return lines


def _says(switch: Switch) -> str:
    said = switch.answers
    if said.computed:
        return f"what it answers is not known, as it is not run: {said.computed}"
    words = [f"{name} = {value}" for name, value in said.attributes.items()]
    if said.function is not None:
        names = ", ".join(
            argument.arg for argument in (*said.function.args.posonlyargs, *said.function.args.args)
        )
        words.append(
            f"{FUNCTION}({names}), which goes before attributes" if words else f"{FUNCTION}({names})"
        )
    return (
        f"has {', '.join(words)}"
        if words
        else "has none of the attributes, nor the function: it denies nothing"
    )


def _tags(claim: Claim) -> str:
    if claim.switch is not None and claim.switch.answers.computed:
        return "Claims: not known"
    if not claim.tags:
        return "Claims: no manylinux tag: installers take source distributions, or nothing"
    return f"Claims: {claim.tags[0]} to {claim.tags[-1]}, {len(claim.tags)} tags"
