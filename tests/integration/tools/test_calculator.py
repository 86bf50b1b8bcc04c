"""The calculator: what it gives, and what it refuses before it costs anything."""

from __future__ import annotations

import contextlib
import sys
from fractions import Fraction

import pytest
from hypothesis import given as for_any
from hypothesis import strategies as st
from tests.integration.tools.calling import call, names, refused

from gossamer.tools.builtin import CalculationError, calculator

KIT = calculator()
(TOOL,) = KIT.tools


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3 * 4", "14"),
        ("0.1 + 0.2", "0.3"),
        ("1.10 * 3", "3.3"),
        ("1 / 3", "1/3 (about 0.3333333333333333)"),
        ("-2 / 3 * 3", "-2"),
        ("-0.05", "-0.05"),
        ("7 // 2 + -7 % 3", "5"),
        ("2 ** 100", str(2**100)),
        ("2 ** -3", "0.125"),
        ("0 ** 0 + 1 ** 10 ** 900 + (-1) ** (10 ** 900 + 1)", "1"),
        ("2 ** 0.5", "1.4142135623730951"),
        ("sqrt(16 / 9)", "4/3 (about 1.3333333333333333)"),
        ("sqrt(2)", "1.4142135623730951"),
        ("round(2.675, 2)", "2.68"),
        ("round(1234, -2) + round(2.5)", "1202"),
        ("log(8, 2) + log10(1000) + log2(4) + ln(e)", "9.0"),
        ("min(3, 1.5) + max(1, 2)", "3.5"),
        ("mean(1, 2, 4)", "7/3 (about 2.3333333333333335)"),
        ("median(5, 1, 2, 10)", "3.5"),
        ("stdev(2, 4, 6)", "2"),
        ("sum(1, 2, 3)", "6"),
        ("gcd(12, 18) + lcm(4, 6)", "18"),
        ("factorial(20) / factorial(18)", "380"),
        ("comb(52, 5) + perm(5, 2)", "2598980"),
        ("cos(pi) + sin(0)", "-1.0"),
        ("hypot(3, 4)", "5.0"),
        ("1_000 + 0x10", "1016"),
        ("(1\n + 1)", "2"),
        ("+".join(["1"] * 480), "480"),
        ("abs(-3.5) + floor(2.7) + ceil(2.1) + trunc(-2.7)", "6.5"),
    ],
)
async def test_calculates(expression, value):
    result = await call(KIT, "calculate", expression=expression)
    assert (result.outcome, result.content) == ("ok", value)


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("", "empty"),
        ("9**9**9", "more than 1000 digits"),
        ("factorial(100000)", "more than 1000 digits"),
        ("factorial(10**900)", "more than 1000 digits"),
        ("comb(10**300, 10**299)", "more than 1000 digits"),
        ("perm(10**9, 10**8)", "more than 1000 digits"),
        ("(1/3) ** 10**9", "more than 1000 digits"),
        ("1e999999999", "more than 1000 digits"),
        ("2 ** -10**9", "more than 1000 digits"),
        # Each number on the way counts, also where the value would be short.
        ("sum(3**-2000, 7**-1100, -(3**-2000), -(7**-1100), 1)", "more than 1000 digits"),
        ("mean(3**-2000, 7**-1100, -(3**-2000), -(7**-1100))", "more than 1000 digits"),
        ("stdev(3**-2000, -(3**-2000))", "more than 1000 digits"),
        ("stdev(3**-2000, 7**-1100, 11**-900)", "more than 1000 digits"),
        ("round(1, 10**9)", "at most 1000 digits"),
        ("*".join(["10**900"] * 50), "more than 1000 digits"),
        ("1" * 1001, "at most 1000 are taken"),
        ("-" * 400 + "1", "nested deeper than 50"),
        ("(" * 300 + "1" + ")" * 300, "cannot be read"),
        ("**".join(["1"] * 300), "nested deeper"),
        ("1 / 0", "divides by zero"),
        ("1 % 0", "divides by zero"),
        ("0 ** -1", "divides by zero"),
        ("log(2, 1)", "divides by zero"),
        ("sqrt(-1)", "no real value"),
        ("(-8) ** (1/3)", "no real value"),
        ("ln(0)", "no real value"),
        ("factorial(-1)", "no real value"),
        ("exp(1000)", "too large for a floating number"),
        ("10.0 ** 400.5", "too large for a floating number"),
        ("factorial(2.5)", "whole numbers, not 2.5"),
        ("gcd(0.5)", "whole numbers, not 0.5"),
        ("sqrt(1, 2)", "takes 1 arguments, not 2"),
        ("round()", "takes 1 to 2 arguments, not 0"),
        ("stdev(1)", "at least 2 arguments, not 1"),
        ("round(1, ndigits=2)", "by position only"),
        ("max(*3)", "by position only"),
        ("2 ^ 3", "write ** for powers"),
        ("5!", "factorial(n)"),
        ("1 1", "cannot be read"),
        ("1,000", "write 1000"),
        ("2 ÷ 3", "'÷' is not understood"),
        ("sin", "is a function"),
        ("x + 1", "x is not known"),
        ("'a' * 1000", "is no number"),
        ("True + 1", "is no number"),
        ("1j", "is no number"),
        ("1 < 2", "not arithmetic"),
        ("1 << 100000000", "operator"),
        ("[1] * 100", "not arithmetic"),
        ("(lambda: 1)()", "no function"),
        ("__import__('os').system('true')", "no function"),
        ("(1).__class__", "not arithmetic"),
        ("open('/etc/passwd')", "'open' is no function"),
        ("1; 2", "cannot be read"),
        ("\0", "cannot be read"),
    ],
)
async def test_refuses(expression, told):
    assert told in await refused(KIT, "calculate", expression=expression)


@pytest.mark.parametrize(
    "arguments", [{}, {"expression": 1}, {"expression": "1", "digits": 2}, {"expression": None}]
)
async def test_arguments_that_do_not_fit_are_told(arguments):
    assert "Invalid arguments for calculate" in await refused(KIT, "calculate", **arguments)


def test_the_model_is_told_of_every_function():
    assert names(KIT) == ["calculate"]
    for name in ("round", "stdev", "comb", "atan2", "pi", "**"):
        assert name in TOOL.schema.description


SMALL = st.fractions(min_value=-1000, max_value=1000, max_denominator=1000)


@for_any(SMALL, SMALL, st.sampled_from("+-*/"))
def test_fractions_are_exact(left, right, sign):
    expression = f"({left}) {sign} ({right})"
    if sign == "/" and not right:
        with pytest.raises(CalculationError):
            TOOL(expression)
        return
    expected = {"+": left + right, "-": left - right, "*": left * right, "/": right and left / right}[sign]
    assert Fraction(TOOL(expression).split()[0]) == expected


@for_any(st.text("0123456789.+-*/%()e ,^!sqrtlogpimaxroundfactorial_'\"[]\n\0", max_size=120))
def test_any_text_has_a_value_or_a_reason(text):
    with contextlib.suppress(CalculationError):
        Fraction(TOOL(text).split()[0])  # a number, and neither infinite nor none


@for_any(
    st.recursive(
        st.sampled_from(["2", "9", "0.5", "10**400", "1e-300", "pi", "3.7"]),
        lambda inner: (
            st.builds("({}{}{})".format, inner, st.sampled_from(["+", "-", "*", "/", "**", "%", "//"]), inner)
            | st.builds("{}({})".format, st.sampled_from(["sqrt", "factorial", "exp", "log", "round"]), inner)
            | st.builds("comb({},{})".format, inner, inner)
        ),
        max_leaves=12,
    )
)
def test_nothing_grows_past_the_bound(expression):
    try:
        value = TOOL(expression)
    except CalculationError:
        return
    assert len(value) < 2 * 1_100 + 100
    assert sys.getsizeof(value) < 5_000
