"""Generate completion scripts for bash, zsh and fish from the command line.

The scripts hold all words, so that a Tab starts no Python. ``docs/manual.py`` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer

from nixpatch.cli.app import COMMANDS, command_line

# What a value or a word is, by its metavar; everything else is completed as a file.
_DIRECTORIES = frozenset({"DIR", "STORE-PATH", "DIR|STORE-PATH"})
_FREE = frozenset({"SONAME", "SONAME@GLOB", "GLOB", "N", "WORD", "REF", "[=GLOB]", "PATTERN", "STRING"})


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command."""

    flags: tuple[str, ...]
    help: str
    metavar: str | None
    """None for a switch"""
    choices: tuple[str, ...]
    repeats: bool


@dataclass(frozen=True, slots=True)
class Command:
    """A command, or a subcommand such as ``manylinux status``."""

    help: str
    options: tuple[Option, ...]
    subcommands: Mapping[str, Command]
    words: tuple[str, ...]
    """what its argument may be; empty: a path"""
    wraps: bool
    """its words are another command"""


def commands() -> dict[str, Command]:
    """Return the commands of the command line by name."""
    group: Any = typer.main.get_command(command_line())
    return {name: _command(name, each) for name, each in group.commands.items()}


def scripts() -> dict[str, str]:
    """Return the scripts by the name of the shell."""
    table = commands()
    return {"bash": _bash(table), "zsh": _zsh(table), "fish": _fish(table)}


def _command(name: str, command: Any) -> Command:
    subcommands = {inner: _command(inner, each) for inner, each in getattr(command, "commands", {}).items()}
    wraps = name in COMMANDS and COMMANDS[name].verbatim
    words = tuple(
        getattr(choice, "value", choice)
        for parameter in command.params
        if parameter.param_type_name == "argument"
        for choice in getattr(parameter.type, "choices", ())
    )
    return Command(_line(command.help), tuple(_options(command)), subcommands, words, wraps)


def _options(command: Any) -> Iterator[Option]:
    for parameter in command.params:
        if parameter.param_type_name != "option" or parameter.hidden:
            continue
        choices = tuple(getattr(choice, "value", choice) for choice in getattr(parameter.type, "choices", ()))
        takes = not (parameter.is_flag or parameter.count)
        metavar = (parameter.metavar or "WORD") if takes else None
        repeats = parameter.multiple or parameter.count
        yield Option(tuple(parameter.opts), _line(parameter.help), metavar, choices, repeats)


def _line(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split()).rstrip(".")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# bash: complete(1) and compgen(1) of the Bash manual, "Programmable Completion".


def _bash(table: Mapping[str, Command]) -> str:
    values: dict[str, str] = {}
    for command in _all(table):
        for option in command.options:
            if option.metavar is not None:
                reply = _bash_value(option)
                values.update(dict.fromkeys(option.flags, reply))
    by_reply: dict[str, list[str]] = {}
    for flag, reply in values.items():
        by_reply.setdefault(reply, []).append(flag)
    names = " ".join(table)
    lines = [
        "# Completion of nixpatch for bash, made by docs/manual.py.",
        "_nixpatch() {",
        "  local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}",
        "  local command= word options",
        "  COMPREPLY=()",
        '  for word in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do',
        "    case $command:$word in",
        "      *:-*) continue ;;",
        f"      :{'|:'.join(table)}) command=$word ;;",
    ]
    for name, command in table.items():
        if command.subcommands:
            inner = "|".join(f"{name}:{each}" for each in command.subcommands)
            lines.append(f"      {inner}) command+=-$word ;;")
    wrapping = "|".join(f"{name}:*" for name, command in table.items() if command.wraps)
    lines += [
        f"      {wrapping}) return ;; # its words are those of another command",
        "      :*) command=patch ;;",
        "    esac",
        "  done",
        "  case $before in",
        *(f"    {'|'.join(sorted(flags))}) {reply}; return ;;" for reply, flags in sorted(by_reply.items())),
        "  esac",
        "  case ${command:-patch} in",
    ]
    for name, command in table.items():
        lines.append(f'    {name}) options="{_words(command.options)}" ;;')
        for inner, each in command.subcommands.items():
            lines.append(f'    {name}-{inner}) options="{_words(each.options)}" ;;')
    lines += [
        "  esac",
        "  case $command:$current in",
        '    *:-*) COMPREPLY=($(compgen -W "$options" -- "$current")) ;;',
        f'    :*) COMPREPLY=($(compgen -W "{names}" -- "$current") $(compgen -f -- "$current")) ;;',
        *(
            f'    {name}:*) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$current")) ;;'
            for name, command in table.items()
            if (words := command.words or tuple(command.subcommands))
        ),
        "  esac",
        "}",
        "complete -o default -o filenames -F _nixpatch nixpatch",
    ]
    return "\n".join(lines) + "\n"


def _bash_value(option: Option) -> str:
    if option.choices:
        return f'COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$current"))'
    if option.metavar in _DIRECTORIES:
        return 'COMPREPLY=($(compgen -d -- "$current"))'
    return "compopt +o default" if option.metavar in _FREE else 'COMPREPLY=($(compgen -f -- "$current"))'


def _words(options: Iterable[Option]) -> str:
    return " ".join(flag for option in options for flag in option.flags)


def _all(table: Mapping[str, Command]) -> Iterator[Command]:
    for command in table.values():
        yield command
        yield from command.subcommands.values()


# zsh: zshcompsys(1), _arguments and _describe.


def _zsh(table: Mapping[str, Command]) -> str:
    lines = [
        "#compdef nixpatch",
        "# Completion of nixpatch for zsh, made by docs/manual.py.",
        "_nixpatch() {",
        "  local command= index",
        "  local -a commands=(",
        *(f"    {_quoted(f'{name}:{command.help}')}" for name, command in table.items()),
        "  )",
        "  for ((index = 2; index < CURRENT; index++)); do",
        "    [[ $words[index] == -* ]] && continue",
        "    command=patch",
        f"    [[ $words[index] == ({'|'.join(table)}) ]] && command=$words[index]",
        "    break",
        "  done",
        "  if [[ -z $command && $PREFIX != -* ]]; then",
        "    _describe -t commands command commands",
        "    _files",
        "    return",
        "  fi",
        "  # _arguments looks at the words behind the command, which may be left out.",
        "  if [[ -n $command && $words[index] == $command ]]; then",
        "    words[index]=(); ((CURRENT--))",
        "  fi",
        "  case ${command:-patch} in",
    ]
    for name, command in table.items():
        lines.append(f"    ({name})")
        if command.subcommands:
            described = (rf"{each}\:{_zsh_escaped(sub.help)}" for each, sub in command.subcommands.items())
            inner = " ".join(described)
            lines += [f"      _arguments -S '1:command:(({inner}))' '*::: :->rest'", "      ;;"]
            continue
        rest = "'*:::command:_normal'" if command.wraps else "'*:path:_files'"
        if command.words:
            rest = f"'1:word:({' '.join(command.words)})'"
        arguments = " \\\n        ".join([*map(_zsh_option, command.options), rest])
        lines.append(f"      _arguments -s -S {arguments}")
        lines.append("      ;;")
    lines += ["  esac", "}", "", '_nixpatch "$@"']
    return "\n".join(lines) + "\n"


def _zsh_escaped(text: str) -> str:
    return re.sub(r"([\\ ()\"':])", r"\\\1", text).replace("'", "'\\''")


def _zsh_option(option: Option) -> str:
    text = re.sub(r"([\[\]:\\])", r"\\\1", option.help).replace("'", "'\\''")
    value = ""
    if option.metavar is not None:
        action = "_files"
        if option.choices:
            action = f"({' '.join(option.choices)})"
        elif option.metavar in _DIRECTORIES:
            action = "_files -/"
        elif option.metavar in _FREE:
            action = " "
        value = ":" + re.sub(r"([\[\]:])", r"\\\1", option.metavar) + f":{action}"
    many = "*" if option.repeats else ""
    if len(option.flags) == 1:
        return f"'{many}{option.flags[0]}[{text}]{value}'"
    excluded = "" if option.repeats else f"'({' '.join(option.flags)})'"
    star = "'*'" if option.repeats else ""
    return f"{excluded}{star}{{{','.join(option.flags)}}}'[{text}]{value}'"


# fish: complete(1).


def _fish(table: Mapping[str, Command]) -> str:
    lines = [
        "# Completion of nixpatch for fish, made by docs/manual.py.",
        "function __nixpatch_command",
        "    # The command of the line; patch may be left out. Nothing where none is typed yet.",
        "    for word in (commandline -opc)[2..]",
        "        string match -q -- '-*' $word; and continue",
        f"        contains -- $word {' '.join(table)}; and echo $word; or echo patch",
        "        return",
        "    end",
        "end",
        "function __nixpatch_is",
        "    set -l command (__nixpatch_command)",
        '    test -n "$command"; or set command patch',
        '    test "$command" = "$argv[1]"',
        "end",
        "function __nixpatch_none",
        "    test -z (__nixpatch_command)",
        "end",
    ]
    for name, command in table.items():
        lines.append(f"complete -c nixpatch -n __nixpatch_none -a {name} -d {_fish_quoted(command.help)}")
        lines += [
            f"complete -c nixpatch -n '__nixpatch_is {name}' {_fish_option(option)}"
            for option in command.options
        ]
        if command.words:
            words = _fish_quoted(" ".join(command.words))
            lines.append(f"complete -c nixpatch -f -n '__nixpatch_is {name}' -a {words}")
        for inner, each in command.subcommands.items():
            unused = f"not __fish_seen_subcommand_from {' '.join(command.subcommands)}"
            lines.append(
                f"complete -c nixpatch -f -n '__nixpatch_is {name}; and {unused}' -a {inner} "
                f"-d {_fish_quoted(each.help)}"
            )
            seen = f"__nixpatch_is {name}; and __fish_seen_subcommand_from {inner}"
            lines += [f"complete -c nixpatch -n '{seen}' {_fish_option(option)}" for option in each.options]
    return "\n".join(lines) + "\n"


def _fish_option(option: Option) -> str:
    words = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags]
    if option.metavar is not None:
        if option.choices:
            words.append(f"-x -a {_fish_quoted(' '.join(option.choices))}")
        elif option.metavar in _DIRECTORIES:
            words.append("-x -a '(__fish_complete_directories)'")
        else:
            words.append("-x" if option.metavar in _FREE else "-r")
    return f"{' '.join(words)} -d {_fish_quoted(option.help)}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
