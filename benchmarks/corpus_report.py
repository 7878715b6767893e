"""What came of the corpus, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rich.table import Table


@dataclass
class Treated:
    """What was left after another tool."""

    working_untouched: int
    broken: dict[str, str]


@dataclass
class Result:
    """What one writer did to the tree."""

    files: int = 0
    written: int = 0
    by_lief: int = 0
    seconds: float = 0
    refused: dict[str, str] = field(default_factory=dict)
    violations: dict[str, list[str]] = field(default_factory=dict)
    opened: int = 0
    opened_before: int = 0
    no_longer_opened: dict[str, str] = field(default_factory=dict)
    programs: int = 0
    programs_differ: dict[str, str] = field(default_factory=dict)
    tools: dict[str, Treated] = field(default_factory=dict)
    restored: int = 0
    restore_differs: list[str] = field(default_factory=list)

    def sound(self, *, tools: bool) -> bool:
        """Tell whether nothing that worked is broken; ``tools``: after other tools, too."""
        treated = any(tool.broken for tool in self.tools.values())
        broken = (self.violations, self.no_longer_opened, self.programs_differ, self.restore_differs)
        return not (any(broken) or (tools and treated))


def table(results: dict[str, Result]) -> Table:
    """Render the results, a column for each writer."""
    shown = Table("", *results, title="what worked before, by writer")
    lines: list[tuple[str, Callable[[Result], object]]] = [
        ("files to edit", lambda r: r.files),
        ("written", lambda r: r.written),
        ("of these by LIEF", lambda r: r.by_lief),
        ("refused", lambda r: len(r.refused)),
        ("seconds", lambda r: r.seconds),
        ("fail a deep check", lambda r: len(r.violations)),
        ("libraries that open, before", lambda r: r.opened_before),
        ("libraries that open, after", lambda r: r.opened),
        ("opened before and no longer", lambda r: len(r.no_longer_opened)),
        ("programs", lambda r: r.programs),
        ("programs that differ", lambda r: len(r.programs_differ)),
        ("restored files", lambda r: r.restored or "-"),
        ("files that differ after restore", lambda r: len(r.restore_differs) if r.restored else "-"),
    ]
    for name, value in lines:
        shown.add_row(name, *(str(value(result)) for result in results.values()))
    for tool in next(iter(results.values())).tools:
        cells = [result.tools[tool] for result in results.values()]
        shown.add_row(
            f"broken beyond untouched by {tool}",
            *(f"{len(c.broken)} of {c.working_untouched}" for c in cells),
        )
    return shown
