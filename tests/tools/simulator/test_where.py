"""where.py: the grammar, against a slow evaluator that builds both text and meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.simulator.where import Where, WhereError

ROW = {"name__label": "web", "power_state": "Running", "empty": ""}


def evaluate(expression: str) -> bool:
    return Where(expression).matches(ROW.__getitem__)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('field "name__label"="web"', True),
        ('"web"=field "name__label"', True),
        ('field "name__label" = field "power_state"', False),
        ('field"empty"=""', True),
        ("true", True),
        ("not true", False),
        ("not not true", True),
        ("not false or true", True),
        ("not (false or true)", False),
        # Equal precedence, to the left: (true or true) and false.
        ("true or true and false", False),
        ("false and false or true", True),
        ("(((true)))", True),
        ('not field "name__label"="db" and "field"="field"', True),
    ],
)
def test_meaning(expression: str, expected: bool) -> None:
    assert evaluate(expression) is expected


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "field",
        'field "a"',
        '"a"',
        '"a"=',
        '"a"="b',
        "'a'='a'",
        "true true",
        "(true",
        "true)",
        "()",
        "and",
        "true and",
        "not",
        "1=1",
        'true="a"',
        'field a="b"',
        "TRUE",
        '"a"="a"="a"',
    ],
)
def test_malformed(expression: str) -> None:
    with pytest.raises(WhereError):
        Where(expression)


def test_depth_costs_no_stack() -> None:
    assert evaluate("(" * 50_000 + "true" + ")" * 50_000)
    assert evaluate("not " * 50_000 + "true")


def test_columns() -> None:
    assert Where('field "a"=field "b" or "c"="d"').columns == {"a", "b"}


operands = st.one_of(
    st.sampled_from(sorted(ROW)).map(lambda name: (f'field "{name}"', ROW[name])),
    st.text(st.characters(exclude_characters='"', exclude_categories=["Cs"])).map(lambda text: (f'"{text}"', text)),
)
leaves = st.one_of(
    st.sampled_from([("true", True), ("false", False)]),
    st.tuples(operands, operands).map(lambda pair: (f"{pair[0][0]} = {pair[1][0]}", pair[0][1] == pair[1][1])),
)
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(lambda item: (f"not ({item[0]})", not item[1])),
        st.tuples(inner, inner).map(lambda two: (f"({two[0][0]}) and ({two[1][0]})", two[0][1] and two[1][1])),
        st.tuples(inner, inner).map(lambda two: (f"({two[0][0]})or({two[1][0]})", two[0][1] or two[1][1])),
    ),
)


@given(expressions)
def test_every_expression_means_what_it_was_built_from(item: tuple[str, bool]) -> None:
    assert evaluate(item[0]) is item[1]


@given(st.text(alphabet='()="abfieldnottrue or and', max_size=40))
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    try:
        result = Where(text).matches(lambda column: column)
    except WhereError:
        return
    assert result in (True, False)
