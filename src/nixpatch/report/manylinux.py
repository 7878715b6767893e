"""The manylinux tags of a Python and the policies that its libraries meet, as text."""

from __future__ import annotations

from collections.abc import Sequence

from nixpatch.escape import shown
from nixpatch.installed.manylinux_module import Maker, ManylinuxModule
from nixpatch.installed.manylinux_parser import FUNCTION
from nixpatch.model.manylinux import Promise
from nixpatch.operations.manylinux import Claim, WrittenModule
from nixpatch.report.phrases import target_text

_YES_NO = {True: "yes", False: "no", None: "?"}


def text(claim: Claim, promises: Sequence[Promise], *, verbose: bool) -> str:
    """Render the claimed tags, the modules that decide them, and a line for each policy, newest first."""
    lines = [target_text(claim.target), *_modules(claim), _tags(claim), ""]
    within = [promise for promise in reversed(promises) if claim.target.libc_version >= promise.policy.glibc]
    rows = [("policy", "claimed", "met")]
    for promise in within:
        broken = promise.broken if verbose else promise.broken[:1]
        hidden = len(promise.broken) - len(broken)
        more = f" (and {hidden} more)" if hidden else ""
        met = "yes" if promise.kept else f"no: {shown(broken[0])}{more}"
        rows.append((promise.policy.title, _YES_NO[promise.claimed], met))
        rows += [("", "", f"    {shown(line)}") for line in broken[1:]]
    width = max(len(row[0]) for row in rows)
    lines += [f"{row[0]:{width}}  {row[1]:7}  {row[2]}".rstrip() for row in rows if within]
    beyond = len(promises) - len(within)
    if beyond:
        lines.append(f"{beyond} later policies are neither claimed nor met: they need a newer glibc.")
    return "\n".join(lines) + "\n"


def written(module: WrittenModule, mode: str) -> list[str]:
    """Return a line about the written module, and further lines of advice."""
    detail = mode
    if mode == "honest":
        limit = module.limit
        detail += f": manylinux_{limit[0]}_{limit[1]} and all below" if limit else ": no policy"
    lines = [f"{shown(module.path)}: written ({detail})"]
    if module.shadowed_by is not None:
        other = module.shadowed_by
        lines.append(
            f"{shown(other.path)} ({other.entry.label}) is imported instead; to import the written one, put "
            "its directory into PYTHONPATH for the installer's command"
        )
    lines.append("pip reads it at every run; uv caches what a Python reports: run uv once with --refresh")
    return lines


def _modules(claim: Claim) -> list[str]:
    if claim.switch is None:
        return ["_manylinux: no such module, so the version of glibc alone decides"]
    lines = []
    for number, switch in enumerate(claim.switches):
        shadowed = "" if number == 0 else "; shadowed by the first one"
        mode = f" {switch.mode}" if switch.maker is Maker.OURS else ""
        lines.append(
            f"_manylinux: {shown(switch.path)} ({switch.entry.label}), "
            f"{switch.maker.value}{shown(mode)}{shadowed}"
        )
        if switch.maker is not Maker.OURS:
            lines.append(f"  {shown(_answers(switch))}")
    return lines


def _answers(switch: ManylinuxModule) -> str:
    answers = switch.answers
    if answers.computed:
        return f"its answers are unknown, as it is not run: {answers.computed}"
    members = [f"{name} = {value}" for name, value in answers.attributes.items()]
    if answers.function is not None:
        arguments = (*answers.function.args.posonlyargs, *answers.function.args.args)
        names = ", ".join(argument.arg for argument in arguments)
        overrides = ", which overrides the attributes" if members else ""
        members.append(f"{FUNCTION}({names}){overrides}")
    if not members:
        return "has neither the attributes nor the function: it denies nothing"
    return f"has {', '.join(members)}"


def _tags(claim: Claim) -> str:
    if claim.switch is not None and claim.switch.answers.computed:
        return "Claims: unknown"
    if not claim.tags:
        return "Claims: no manylinux tag, so installers take source distributions or nothing"
    return f"Claims: {claim.tags[0]} to {claim.tags[-1]}, {len(claim.tags)} tags"
