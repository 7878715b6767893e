"""Reports: each function turns plans, outcomes, verdicts and other results into text, JSON, HTML or Nix.

Nothing here reads a tree or decides anything. ``text``, ``html`` and ``as_json`` render plans, outcomes and
verdicts; ``as_json`` has the fields of every JSON document. The other results have a module each, with the
name of the operation that makes them. ``closing`` has the last line of each report.
"""
