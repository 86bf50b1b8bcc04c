"""Arithmetic for a model: exact where numbers are exact, floating where they cannot be, bounded everywhere.

The expression is parsed by Python's own parser and walked node by node; nothing is compiled and nothing evaluated by
`eval`. Whole numbers and decimals are exact fractions, so that `0.1 + 0.2` is `0.3`. Roots, logarithms and angles are
floating, but for roots of squares.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any, TypeAlias

from gossamer.errors import GossamerError
from gossamer.tools.function import tool
from gossamer.tools.toolkit import Toolkit

__all__ = ["MAX_DEPTH", "MAX_DIGITS", "MAX_LENGTH", "CalculationError", "calculator"]

# What an expression may have at most, and each number in it and on the way to its value.
MAX_LENGTH = 1_000
MAX_DEPTH = 50
MAX_DIGITS = 1_000

_MAX_BITS = int(MAX_DIGITS * math.log2(10)) + 1
_MAX_DECIMALS = 50  # a longer exact value is shown as a fraction, with a floating one beside

Number: TypeAlias = int | float | Fraction


class CalculationError(GossamerError):
    """An expression cannot be calculated: it is not arithmetic, has no value, or is out of bounds."""


def calculator() -> Toolkit:
    """Make a toolkit with which a model calculates: one tool, `calculate`.

    It knows `+ - * / // % **`, the usual functions and the constants `pi`, `e` and `tau`. An expression has at most
    `MAX_LENGTH` characters and `MAX_DEPTH` levels, a number at most `MAX_DIGITS` digits; what would grow past them is
    refused before it is calculated.

    Returns:
        The toolkit. It needs nothing open and may be shared by any number of agents.
    """
    work = tool(name="calculate", inline=True, idempotent=True)(_calculate)
    return Toolkit("calculator", [work], description="Calculate with exact and floating numbers.")


def _calculate(expression: str) -> str:
    """Calculate an arithmetic expression. Decimals are exact: 0.1 + 0.2 gives 0.3.

    Operators: + - * / // % ** and parentheses. Constants: pi, e, tau.
    Functions: abs, round(x, digits), floor, ceil, trunc, sqrt, cbrt, exp, log(x, base), ln, log2, log10, sin, cos,
    tan, asin, acos, atan, atan2, sinh, cosh, tanh, degrees, radians, hypot, min, max, sum, mean, median, stdev, gcd,
    lcm, factorial, comb, perm. Angles are in radians.

    Args:
        expression: such as "(3 + 4.5) * 2 ** 10" or "sqrt(2) / 3". Write numbers without thousands separators.
    """
    if len(expression) > MAX_LENGTH:
        raise CalculationError(
            f"the expression has {len(expression)} characters; at most {MAX_LENGTH} are taken: calculate it in parts"
        )
    text = " ".join(expression.split())  # on one line, where the place of a node in its text is one number
    return _write(_value(_parse(text), text, 0))


# --- reading --------------------------------------------------------------------------------------------------------


def _parse(text: str) -> ast.expr:
    if not text:
        raise CalculationError("the expression is empty; give arithmetic such as 2 * (3 + 4)")
    if not text.isascii():
        odd = next(letter for letter in text if not letter.isascii())
        raise CalculationError(f"{odd!r} is not understood; use + - * / ** and names of functions")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        hint = "; write factorial(n) for n!" if "!" in text else ""
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        raise CalculationError(f"the expression cannot be read: {reason}{hint}") from None


def _value(node: ast.expr, text: str, depth: int) -> Number:
    if depth > MAX_DEPTH:
        raise CalculationError(
            f"the expression is nested deeper than {MAX_DEPTH} levels; calculate it in parts"
        )
    if isinstance(node, ast.Constant):
        return _literal(node, text)
    if isinstance(node, ast.Name):
        return _constant(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, text, depth + 1)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        return _operations(node, text, depth)
    if isinstance(node, ast.Call):
        return _call(node, text, depth)
    if isinstance(node, ast.Tuple):
        raise CalculationError("a comma stands between arguments only; write 1000, not 1,000")
    raise CalculationError(
        f"{_excerpt(node, text)} is not arithmetic; there are numbers, operators, parentheses, functions and constants"
    )


def _literal(node: ast.Constant, text: str) -> Number:
    """Read a number from its own text: what the parser made of a decimal has lost its last digits."""
    if isinstance(node.value, bool) or not isinstance(node.value, int | float):
        raise CalculationError(f"{_excerpt(node, text)} is no number")
    if isinstance(node.value, int):
        return _bounded(node.value)
    written = _source(node, text).replace("_", "")
    exponent = written.lower().partition("e")[2]
    if exponent and (len(exponent) > 6 or abs(int(exponent)) > MAX_DIGITS):
        raise CalculationError(f"{written} has more than {MAX_DIGITS} digits")
    return _bounded(Fraction(written))


def _constant(name: str) -> float:
    try:
        return _CONSTANTS[name]
    except KeyError:
        known = ", ".join(_CONSTANTS)
        about = "is a function: write it with its arguments" if name in _FUNCTIONS else "is not known"
        raise CalculationError(f"{name} {about}; constants: {known}") from None


def _excerpt(node: ast.expr, text: str) -> str:
    source = _source(node, text)
    return repr(source if len(source) <= 60 else source[:60] + "…")


def _source(node: ast.expr, text: str) -> str:
    return text[node.col_offset : node.end_col_offset]


# --- calculating ----------------------------------------------------------------------------------------------------


def _operations(node: ast.BinOp, text: str, depth: int) -> Number:
    """Calculate `1 + 2 - 3 …` from the left: the parser nests it, though a person sees no levels in it."""
    chain = [node]
    while isinstance(chain[-1].left, ast.BinOp):
        chain.append(chain[-1].left)
    value = _value(chain[-1].left, text, depth + 1)
    for operation in reversed(chain):
        value = _operation(value, operation, text, depth)
    return value


def _operation(left: Number, node: ast.BinOp, text: str, depth: int) -> Number:
    if isinstance(node.op, ast.BitXor):
        raise CalculationError("^ is not known; write ** for powers")
    function = _OPERATORS.get(type(node.op))
    if function is None:
        raise CalculationError(
            f"the operator in {_excerpt(node, text)} is not known; there are + - * / // % **"
        )
    return _apply(function, (left, _value(node.right, text, depth + 1)), node, text)


def _call(node: ast.Call, text: str, depth: int) -> Number:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name not in _FUNCTIONS:
        raise CalculationError(
            f"{_excerpt(node.func, text)} is no function here; there are {', '.join(sorted(_FUNCTIONS))}"
        )
    if node.keywords or any(isinstance(one, ast.Starred) for one in node.args):
        raise CalculationError(f"{name} takes its arguments by position only")
    least, most, function = _FUNCTIONS[name]
    if not least <= len(node.args) <= most:
        count = str(least) if least == most else f"{least} to {most}" if most < _MANY else f"at least {least}"
        raise CalculationError(f"{name} takes {count} arguments, not {len(node.args)}")
    return _apply(function, tuple(_value(one, text, depth + 1) for one in node.args), node, text)


def _apply(function: Callable[..., Any], values: tuple[Number, ...], node: ast.expr, text: str) -> Number:
    try:
        value = function(*values)
    except ZeroDivisionError:
        raise CalculationError(f"{_excerpt(node, text)} divides by zero") from None
    except OverflowError:
        raise CalculationError(f"{_excerpt(node, text)} is too large for a floating number") from None
    except ValueError:
        raise CalculationError(f"{_excerpt(node, text)} has no real value") from None
    if isinstance(value, complex):
        raise CalculationError(f"{_excerpt(node, text)} has no real value")
    if isinstance(value, float) and not math.isfinite(value):
        raise CalculationError(f"{_excerpt(node, text)} is too large for a floating number")
    return _bounded(value)


def _bounded(value: Number) -> Number:
    """Give a number as it is, a fraction that is whole as one, and refuse one with too many digits."""
    if isinstance(value, Fraction):
        if value.denominator != 1:
            if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
                raise _too_long()
            return value
        value = value.numerator
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise _too_long()
    return value


def _too_long() -> CalculationError:
    return CalculationError(f"a number would have more than {MAX_DIGITS} digits")


def _power(base: Number, exponent: Number) -> Any:
    if isinstance(base, float) or not isinstance(exponent, int):
        return float(base) ** float(exponent)
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if size > 1 and abs(exponent) * (size - 1) > _MAX_BITS:  # refused before it is calculated
        raise _too_long()
    return Fraction(base) ** (exponent if size > 1 else exponent % 2 if base else min(max(exponent, -1), 1))


def _root(value: Number) -> Number:
    if not isinstance(value, float) and value >= 0:
        above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if above * above == value.numerator and below * below == value.denominator:
            return Fraction(above, below)
    return math.sqrt(value)


def _round(value: Number, digits: Number = 0) -> Number:
    places = _whole(digits, "round")
    if abs(places) > MAX_DIGITS:
        raise CalculationError(f"round takes at most {MAX_DIGITS} digits, not {places}")
    return round(value, places) if places else round(value)


def _logarithm(value: Number, base: Number = math.e) -> float:
    if value <= 0 or base <= 0:
        raise ValueError
    if base == 2:
        return _log_of(value, math.log2)
    return _log_of(value, math.log10) if base == 10 else _log_of(value, math.log) / _log_of(base, math.log)


def _log_of(value: Number, log: Callable[[Any], float]) -> float:
    # Numerator and denominator apart: a fraction may be too large, or too small, for a floating number.
    if isinstance(value, Fraction) and value > 0:
        return log(value.numerator) - log(value.denominator)
    return log(value)


def _factorial(value: Number) -> int:
    number = _whole(value, "factorial")
    if number > 0 and math.lgamma(min(number, _MAX_BITS) + 1) > _MAX_BITS * math.log(2):
        raise _too_long()
    return math.factorial(number)


def _choices(name: str, function: Callable[[int, int], int]) -> Callable[[Number, Number], int]:
    def choose(n: Number, k: Number) -> int:
        total, taken = _whole(n, name), _whole(k, name)
        fewer = min(taken, total - taken) if name == "comb" else taken
        # At least so large is the result: n - k multiplied, or divided, as often as it is.
        if 0 < fewer <= total and (fewer > _MAX_BITS or fewer * total.bit_length() > 4 * _MAX_BITS):
            raise _too_long()
        return function(total, taken)

    return choose


def _whole(value: Number, name: str) -> int:
    if not isinstance(value, int):
        raise CalculationError(f"{name} takes whole numbers, not {_write(value)}")
    return value


def _whole_of(name: str, function: Callable[..., int]) -> Callable[..., int]:
    return lambda *values: function(*(_whole(value, name) for value in values))


def _mean(*values: Number) -> Number:
    return _sum(*values) / Fraction(len(values))


def _sum(*values: Number) -> Number:
    total: Number = Fraction(0)
    for value in values:
        total = _bounded(total + value)  # each on the way: a sum of fractions grows by all their denominators
    return total


def _median(*values: Number) -> Number:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else _mean(ordered[middle - 1], ordered[middle])


def _deviation(*values: Number) -> Number:
    mean = _bounded(_mean(*values))
    apart = [_bounded(value - mean) for value in values]
    squares = [_bounded(one * one) for one in apart]
    return _root(_sum(*squares) / Fraction(len(values) - 1))


_MANY = MAX_LENGTH

_CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: (
        left / right if isinstance(left, float) or isinstance(right, float) else Fraction(left) / right
    ),
    ast.FloorDiv: lambda left, right: left // right,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}

# The least and the most arguments, and what is called with them.
_FUNCTIONS: dict[str, tuple[int, int, Callable[..., Any]]] = {
    "abs": (1, 1, abs),
    "round": (1, 2, _round),
    "floor": (1, 1, math.floor),
    "ceil": (1, 1, math.ceil),
    "trunc": (1, 1, math.trunc),
    "sqrt": (1, 1, _root),
    "cbrt": (1, 1, math.cbrt),
    "exp": (1, 1, math.exp),
    "log": (1, 2, _logarithm),
    "ln": (1, 1, _logarithm),
    "log2": (1, 1, partial(_logarithm, base=2)),
    "log10": (1, 1, partial(_logarithm, base=10)),
    "sin": (1, 1, math.sin),
    "cos": (1, 1, math.cos),
    "tan": (1, 1, math.tan),
    "asin": (1, 1, math.asin),
    "acos": (1, 1, math.acos),
    "atan": (1, 1, math.atan),
    "atan2": (2, 2, math.atan2),
    "sinh": (1, 1, math.sinh),
    "cosh": (1, 1, math.cosh),
    "tanh": (1, 1, math.tanh),
    "degrees": (1, 1, math.degrees),
    "radians": (1, 1, math.radians),
    "hypot": (1, _MANY, math.hypot),
    "min": (1, _MANY, lambda *values: min(values)),
    "max": (1, _MANY, lambda *values: max(values)),
    "sum": (1, _MANY, _sum),
    "mean": (1, _MANY, _mean),
    "median": (1, _MANY, _median),
    "stdev": (2, _MANY, _deviation),
    "gcd": (1, _MANY, _whole_of("gcd", math.gcd)),
    "lcm": (1, 20, _whole_of("lcm", math.lcm)),
    "factorial": (1, 1, _factorial),
    "comb": (2, 2, _choices("comb", math.comb)),
    "perm": (2, 2, _choices("perm", math.perm)),
}


# --- writing --------------------------------------------------------------------------------------------------------


def _write(value: Number) -> str:
    """Write a value: whole and decimal ones in full, other fractions with a floating one beside."""
    if not isinstance(value, Fraction):
        return repr(value)
    places = _places(value.denominator)
    if places is not None and places <= _MAX_DECIMALS:
        digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
        return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
    try:
        near = repr(float(value))
    except OverflowError:
        near = str(round(value))
    return f"{value.numerator}/{value.denominator} (about {near})"


def _places(denominator: int) -> int | None:
    """Count the decimals that a fraction in lowest terms has; None where they never end."""
    twos = fives = 0
    while denominator % 2 == 0:
        denominator //= 2
        twos += 1
    while denominator % 5 == 0:
        denominator //= 5
        fives += 1
    return max(twos, fives) if denominator == 1 else None
