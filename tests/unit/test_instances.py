from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.instances import SchemaError, minimal_instance

BOUNDS = st.fixed_dictionaries(
    {"type": st.sampled_from(["integer", "number"])},
    optional={
        name: st.integers(-20, 20) | st.sampled_from([-2.5, -0.5, 0.5, 1.5, 2.5])
        for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    }
    | {"multipleOf": st.sampled_from([1, 2, 3, 5, 0.5, 1.5])},
)


def fits(schema, value):
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    whole = isinstance(value, int) if schema["type"] == "integer" else True
    return (
        whole
        and low <= value <= high
        and above < value < below
        and not value % schema.get("multipleOf", value or 1)
    )


@given(BOUNDS)
def test_a_number_keeps_every_bound_or_there_is_none(schema):
    candidates = [each / 6 for each in range(-150, 151)]
    if schema["type"] == "integer":
        candidates = list(range(-25, 26))
    try:
        value = minimal_instance(schema)
    except SchemaError:
        assert not any(fits(schema, each) for each in candidates)
    else:
        assert fits(schema, value), value


def test_what_stands_beside_a_choice_holds_for_each():
    schema = {
        "type": "object",
        "properties": {"kind": {"const": "pet"}},
        "required": ["kind"],
        "anyOf": [{"properties": {"name": {"type": "string"}}, "required": ["name"]}],
    }
    assert minimal_instance(schema) == {"kind": "pet", "name": "text"}


@pytest.mark.parametrize(
    ("limits", "expected"), [({"maxItems": 1}, [None]), ({"maxItems": 0}, []), ({}, [None, None])]
)
def test_a_list_is_no_longer_than_it_may_be(limits, expected):
    schema = {"type": "array", "prefixItems": [{"type": "null"}, {"type": "null"}], **limits}
    assert minimal_instance(schema) == expected
