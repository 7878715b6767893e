"""What people and programs get to see: pure renderers of plan, outcome and verdict.

``lines`` decides what is said, ``text`` how it looks on a terminal, ``as_json`` what programs read.
"""
