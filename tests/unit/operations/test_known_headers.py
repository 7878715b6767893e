"""What is kept of a file's headers is given back whole, whatever is in them."""

import json
from dataclasses import fields

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nixpatch.fs import can_be_path
from nixpatch.model import ElfFacts, Skip
from nixpatch.operations.known_headers import _packed, _unpacker

_TEXTS = st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape")).filter(can_be_path)
st.register_type_strategy(str, _TEXTS)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.builds(ElfFacts, **{field.name: ... for field in fields(ElfFacts)}))
def test_facts_come_back(facts: ElfFacts) -> None:
    assert _unpacker(ElfFacts)(json.loads(json.dumps(_packed(facts)))) == facts


@given(st.from_type(Skip))
def test_reasons_come_back(skip: Skip) -> None:
    assert _unpacker(Skip)(json.loads(json.dumps(_packed(skip)))) == skip
