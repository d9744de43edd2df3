"""The `where` expressions of get_all_where and get_all_records_where.

Grammar, after xapi's ocaml/database/db_filter_{lex.mll,parse.mly}: `value = value`, `and`, `or`, `not`, parentheses,
`true`, `false`; a value is `field "column"` or `"literal"`, without escapes. `and` and `or` bind equally and to the
left, `not` binds tighter. Nothing here recurses, so an expression may be nested as deep as a request is long.
"""

from __future__ import annotations

import re
from typing import Callable, NamedTuple, Union

_TOKEN = re.compile(r'\s*(?:(?P<word>[a-z]+)|(?P<symbol>[()=])|"(?P<literal>[^"]*)"|(?P<end>\Z))')
_PARSE_ERROR = "Stdlib.Parsing.Parse_error"
_LEX_ERROR = 'Failure("lexing: empty word")'


class WhereError(ValueError):
    """Raised when an expression is malformed; the message is the OCaml exception that xapi would report."""


class Operand(NamedTuple):
    """One side of `=`: the literal itself, or the value of a database column."""

    is_column: bool
    text: str


class Equal(NamedTuple):
    """A comparison of two operands, as database strings."""

    left: Operand
    right: Operand


Step = Union[str, bool, Equal]
"""One step of the program below: an operator's name, a constant, or a comparison."""


class Where:
    """A parsed expression: a program in postfix order.

    expression: the text; WhereError when it is malformed.
    """

    def __init__(self, expression: str) -> None:
        self._program = _parse(_tokens(expression))

    @property
    def columns(self) -> set[str]:
        """The database columns that it compares."""
        sides = (side for step in self._program if isinstance(step, Equal) for side in step)
        return {side.text for side in sides if side.is_column}

    def matches(self, column: Callable[[str], str]) -> bool:
        """Whether a row satisfies it. `column` gives the row's database string for a column."""
        stack: list[bool] = []
        for step in self._program:
            if isinstance(step, bool):
                stack.append(step)
            elif isinstance(step, Equal):
                left, right = (column(side.text) if side.is_column else side.text for side in step)
                stack.append(left == right)
            elif step == "not":
                stack.append(not stack.pop())
            else:
                second, first = stack.pop(), stack.pop()
                stack.append((first and second) if step == "and" else (first or second))
        return stack.pop()


class _Literal(str):
    """A word that stood in quotes."""


def _tokens(expression: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    while True:
        match = _TOKEN.match(expression, position)
        if match is None:
            raise WhereError(_LEX_ERROR)
        if match["end"] is not None:
            return tokens
        if match["literal"] is not None:
            tokens.append(_Literal(match["literal"]))
        elif match["word"] and match["word"] not in ("and", "or", "not", "true", "false", "field"):
            raise WhereError(_LEX_ERROR)
        else:
            tokens.append(match["word"] or match["symbol"])
        position = match.end()


def _parse(tokens: list[str]) -> list[Step]:
    # Two states: an expression is wanted, or one is complete and an operator may follow.
    program: list[Step] = []
    pending: list[str] = []
    position, wanted = 0, True

    def reduce_operators() -> None:
        while pending and pending[-1] != "(":
            program.append(pending.pop())

    while position < len(tokens):
        word = tokens[position]
        literal = isinstance(word, _Literal)
        if wanted and not literal and word in ("not", "("):
            pending.append(word)
            position += 1
        elif wanted and not literal and word in ("true", "false"):
            program.append(word == "true")
            position, wanted = position + 1, False
        elif wanted:
            left, position = _operand(tokens, position)
            if position >= len(tokens) or isinstance(tokens[position], _Literal) or tokens[position] != "=":
                raise WhereError(_PARSE_ERROR)
            right, position = _operand(tokens, position + 1)
            program.append(Equal(left, right))
            wanted = False
        elif not literal and word in ("and", "or"):
            reduce_operators()
            pending.append(word)
            position, wanted = position + 1, True
        elif not literal and word == ")":
            reduce_operators()
            if not pending:
                raise WhereError(_PARSE_ERROR)
            pending.pop()
            position += 1
        else:
            raise WhereError(_PARSE_ERROR)
        if not wanted:
            while pending and pending[-1] == "not":
                program.append(pending.pop())
    reduce_operators()
    if wanted or pending:
        raise WhereError(_PARSE_ERROR)
    return program


def _operand(tokens: list[str], position: int) -> tuple[Operand, int]:
    if position < len(tokens) and isinstance(tokens[position], _Literal):
        return Operand(False, tokens[position]), position + 1
    following = tokens[position : position + 2]
    if len(following) == 2 and following[0] == "field" and isinstance(following[1], _Literal):
        return Operand(True, following[1]), position + 2
    raise WhereError(_PARSE_ERROR)
