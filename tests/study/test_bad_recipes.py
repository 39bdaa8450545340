"""A table of bad recipes, overrides and command lines: each ends at once in a message with the key and the value."""

import time
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf
from pydantic import BaseModel

from examples.images import datasets
from examples.recipe.schema import Recipe, load_recipe

HUGE = "9" * 30


def fields(model, prefix=""):
    """Dotted key and annotation of every setting, and of every section."""
    for name, field in model.model_fields.items():
        annotation = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        yield f"{prefix}{name}", annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from fields(annotation, f"{prefix}{name}.")


def wrong(annotation: Any) -> list[str]:
    """Values that the annotation does not allow: of another type, and just beyond each bound."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        beyond = [_beyond(bound) for bound in inner[1:]]
        return [*wrong(inner[0]), *(value for value in beyond if value is not None)]
    if origin in (Union, UnionType):
        (kind,) = (x for x in inner if x is not type(None))
        return [value for value in wrong(kind) if value != "null"]
    if origin is Literal:
        return ["other", "[1]", "null", "{a: 1}"]
    if origin is tuple:
        return ["5", "[many]", "null", "{a: 1}", "[[1]]", *(["[1,1,1,1,1]"] if Ellipsis not in inner else [])]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return ["5", "[1]", "null"]
    return {
        bool: ["no", "1", "[true]", "null", "{a: 1}"],
        int: ["many", "1.5", "true", "nan", "inf", "[1]", "null", "{a: 1}", "${oc.env:HOME}", "0x10", "1e3", HUGE],
        float: ["many", "true", "nan", "inf", "1e400", "[1]", "null", "{a: 1}", "${oc.env:HOME}", "1,5"],
        str: ["[1]", "null", "{a: 1}"],
    }[annotation]


def _beyond(bound: Any) -> str | None:
    """A value that a bound excludes."""
    beyond = {
        Ge: lambda: bound.ge - 1, Gt: lambda: bound.gt, Le: lambda: bound.le + 1, Lt: lambda: bound.lt,
        MultipleOf: lambda: 2 * bound.multiple_of + 1, MinLen: str,
    }  # fmt: skip
    return str(beyond[type(bound)]()) if type(bound) in beyond else None


WRONG = {key: wrong(annotation) for key, annotation in fields(Recipe)}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """No data are loaded, and what a test does takes less than a second of the processor."""

    def loaded(*arguments, **settings):
        pytest.fail("data were loaded")

    for name in ("_cifar100", "_textures", "_imagenet100"):
        monkeypatch.setattr(datasets, name, loaded)
    began = time.process_time()
    yield
    assert time.process_time() - began < 1


def refused(*parts, call):
    with pytest.raises(SystemExit) as caught:
        call()
    message = str(caught.value)
    for part in parts:
        assert str(part) in message, message


@pytest.mark.parametrize("key", WRONG)
def test_a_value_that_its_field_does_not_allow_is_refused_by_key_and_value(key, tmp_path):
    path = tmp_path / "mine.yaml"
    for value in WRONG[key]:
        flow = value.startswith(("[", "{"))
        shown = "" if flow else value  # a list is shown as JSON
        refused(key, shown, call=lambda value=value: load_recipe("textures", [f"{key}={value}"]))
        path.write_text(f"{key}: {value or repr(value)}")
        refused(key, shown, path.name, call=lambda: load_recipe(str(path)))


def test_the_table_is_as_large_as_it_says():
    assert sum(map(len, WRONG.values())) > 1000
