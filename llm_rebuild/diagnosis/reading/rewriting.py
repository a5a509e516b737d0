"""A line put right: the ways in which an edit could be written into it, and a person's code with one of them.

A way is only a guess until the code has run with it: which of the names in a line holds the tensor that an
edit is about, the source does not say.
"""

from __future__ import annotations

import ast
import gc
import linecache
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FunctionType

from llm_rebuild.diagnosis.reading.slices import Difference, constants, word
from llm_rebuild.diagnosis.reading.words import Words
from llm_rebuild.verify.recording import Frame

SIGNS = {"add": ast.Add, "sub": ast.Sub, "mul": ast.Mult, "div": ast.Div, "pow": ast.Pow, "and": ast.BitAnd}
SIGNS |= {"or": ast.BitOr, "matmul": ast.MatMult, "rsub": ast.Sub}  # the last with a number on the left


def rewritings(words: Words, edits: Sequence[Difference], frame: Frame) -> list[str]:
    """The ways to write an edit into a line; of several edits there are none."""
    before = frame.text.strip()
    try:
        nodes = ast.walk(ast.parse(before)) if len(edits) == 1 else ()
    except SyntaxError:  # a part of a statement
        return []
    ways = (way for node in nodes for way in _of_node(words, edits[0], before, node))
    return [way for way in dict.fromkeys(ways) if way != before]


def _of_node(words: Words, edit: Difference, before: str, node: ast.AST) -> Iterator[str]:
    """The ways to write an edit into one piece of a line."""
    own, theirs = words.sides(edit)
    if isinstance(node, ast.Constant) and edit.kind == "constant":
        for wrong, right in zip(constants(own), constants(theirs), strict=False):
            if wrong != right and type(node.value) in (int, float) and node.value == wrong:
                yield _put(before, node, repr(right))
    elif isinstance(node, ast.BinOp) and edit.kind == "drop":
        if isinstance(node.op, SIGNS.get(word(own), ())):
            yield from _without(before, node, (node.left, node.right))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        function, home = node.func, node.func.value
        outside = isinstance(home, ast.Name) and home.id in ("torch", "F")
        if function.attr.rstrip("_") not in (word(own), own.operation):
            return
        if edit.kind == "drop":
            operands = [*node.args, *(named.value for named in node.keywords)]
            yield from _without(before, node, operands if outside else [home, *operands])
        elif edit.kind == "replace":
            yield _put(before, function, f"{ast.get_source_segment(before, home)}.{word(theirs)}")


def _without(before: str, node: ast.expr, operands: Sequence[ast.expr]) -> Iterator[str]:
    """A line without an operation: one of its operands stands there, in brackets where it needs some."""
    for operand in operands:
        text = ast.get_source_segment(before, operand) or ""
        yield _put(before, node, text)
        if not isinstance(operand, (ast.Name, ast.Call, ast.Attribute, ast.Subscript, ast.Constant)):
            yield _put(before, node, f"({text})")


def _put(text: str, node: ast.expr, instead: str) -> str:
    """A line with something in the place of a node. Python counts a line's columns in bytes."""
    line = text.encode()
    return (line[: node.col_offset] + instead.encode() + line[node.end_col_offset :]).decode()


def functions_of(file: str) -> list[FunctionType]:
    """The functions that a file has defined. All objects but the fork server's are looked at."""
    functions = (f for f in gc.get_objects() if type(f) is FunctionType)
    return [function for function in functions if function.__code__.co_filename == file]


@contextmanager
def in_place(frame: Frame, after: str, functions: Sequence[FunctionType]) -> Iterator[None]:
    """Inside, the functions of a person's file run with one line of it as it would be right. Raises
    SyntaxError or ValueError for a line with which they could not."""
    lines = list(linecache.getlines(frame.file))
    line = lines[frame.number - 1]
    lines[frame.number - 1] = line.replace(line.strip(), after, 1)
    codes = dict(_codes(compile("".join(lines), frame.file, "exec", dont_inherit=True)))
    before = [(function, function.__code__) for function in functions]
    try:
        for function, code in before:
            function.__code__ = codes.get((code.co_name, code.co_firstlineno), code)
        yield
    finally:
        for function, code in before:
            function.__code__ = code


def _codes(code: CodeType) -> Iterator[tuple[tuple[str, int], CodeType]]:
    """The functions that are written in a piece of code, by name and first line."""
    for inner in (constant for constant in code.co_consts if isinstance(constant, CodeType)):
        yield (inner.co_name, inner.co_firstlineno), inner
        yield from _codes(inner)
