"""Grammar of the symbolic sizes in an exported program, which torch parses with sympy, and sympy evaluates."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from model.errors import CheckpointError

__all__ = ["check_expression", "is_symbol"]

_LARGEST_EXPRESSION = 20_000  # characters
_LARGEST_POWER = 8
_LARGEST_INTEGER = 2**63
_SYMBOL = re.compile(r"[a-z]{1,3}[0-9]{1,6}")
# Functions of symbolic sizes that torch.export writes. None of them can be told to run anything else.
_SIZE_FUNCTIONS = frozenset(
    {
        *("Add", "Mul", "Pow", "Max", "Min", "Integer", "Rational", "Float", "Abs", "Eq", "Ne", "Le", "Lt", "Ge", "Gt"),
        *("And", "Or", "Not", "FloorDiv", "CleanDiv", "CeilDiv", "Mod", "PythonMod", "ModularIndexing", "Where"),
        *("IntTrueDiv", "FloatTrueDiv", "ToFloat", "FloorToInt", "CeilToInt", "TruncToInt", "RoundToInt", "Identity"),
        *("Equality", "Unequality", "StrictLessThan", "StrictGreaterThan", "LessThan", "GreaterThan", "PowByNatural"),
    }
)
_SIZE_NAMES = frozenset({"true", "false", "int_oo", "oo"})
_ASSUMPTIONS = frozenset({"positive", "integer", "nonnegative", "nonzero", "real"})


def is_symbol(name: str) -> bool:
    """Return whether a name is one that torch.export gives to a size, such as `s53`."""
    return bool(_SYMBOL.fullmatch(name))


def check_expression(text: Any) -> None:
    """Refuse a symbolic expression outside the grammar of sizes: symbols, integers and a few functions."""
    if not isinstance(text, str) or len(text) > _LARGEST_EXPRESSION:
        raise CheckpointError(f"a symbolic expression of the program is longer than {_LARGEST_EXPRESSION} characters")
    try:
        tree = ast.parse(text, mode="eval").body
        sound = all(_allowed(node) for node in _nodes(tree))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        sound = False
    if not sound:
        raise CheckpointError(f"the symbolic expression {text[:100]!r} of the program is not allowed")


def _nodes(tree: ast.expr) -> Iterator[ast.AST]:
    """Yield the expressions of a tree; the function of a call is checked with the call."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.Call):
            # The arguments of Symbol are checked with it.
            is_symbol = isinstance(node.func, ast.Name) and node.func.id == "Symbol"
            waiting.extend([] if is_symbol else node.args)
        elif isinstance(node, ast.UnaryOp):
            waiting.append(node.operand)


def _allowed(node: ast.AST) -> bool:
    """Return whether an expression, without its arguments, is in the grammar."""
    if isinstance(node, ast.Name):
        return node.id in _SIZE_NAMES or is_symbol(node.id)
    if isinstance(node, ast.Constant):
        number = node.value
        return isinstance(number, int | float) and type(number) is not bool and abs(number) < _LARGEST_INTEGER
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and _allowed_call(node, node.func.id)


def _allowed_call(node: ast.Call, function: str) -> bool:
    """Return whether a call, without its arguments, is in the grammar."""
    if function == "Symbol":
        (name,) = node.args
        assumed = all(word.arg in _ASSUMPTIONS and isinstance(word.value, ast.Constant) for word in node.keywords)
        return assumed and isinstance(name, ast.Constant) and is_symbol(str(name.value))
    if function in ("Pow", "PowByNatural"):
        # A power of a power can be larger than any memory; sizes have small ones.
        base, exponent = node.args
        return _is_size(base) and _small(exponent) and not node.keywords
    if function == "Float":
        return all(isinstance(each, ast.Constant) for each in node.args) and len(ast.dump(node)) < 300
    return function in _SIZE_FUNCTIONS and not node.keywords


def _is_size(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in ("Integer", "Pow")


def _small(node: ast.expr) -> bool:
    """Return whether an exponent is a small integer."""
    text = ast.unparse(node)
    found = re.fullmatch(r"(?:Integer\()?(-?\d{1,3})\)?", text)
    return found is not None and abs(int(found.group(1))) <= _LARGEST_POWER
