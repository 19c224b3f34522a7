"""A signature as JSON Schema (the dialect of OpenAPI 3.0.3) and as an example row; numpy stays out of it.

Ranges and categories are part of a schema where the signature enforces them; else they are told in the description, as
what training saw. Those of a private field are told only where they are enforced, and its categories never.
"""

from __future__ import annotations

from typing import Any

from salver.signature import Column, Field, Signature, Tensor

_COLUMNS: dict[str, dict[str, Any]] = {
    "float": {"type": "number", "format": "double"},
    "int": {"type": "integer", "format": "int64"},
    "bool": {"type": "boolean"},
    "str": {"type": "string"},
    "category": {"type": "string"},
    "datetime": {"type": "string", "format": "date-time"},
    "bytes": {"type": "string", "format": "byte"},
}
_EXAMPLES: dict[str, Any] = {
    "float": 0.0,
    "int": 0,
    "bool": False,
    "str": "text",
    "category": "text",
    "datetime": "2024-01-31T12:00:00Z",
    "bytes": "AP8=",
}
_TOLD = 20
"""So many categories are listed in a description."""


def input_schema(signature: Signature) -> dict[str, Any]:
    """The schema of one input row. Further fields are allowed and ignored."""
    required = [f.name for f in signature.inputs if not (isinstance(f, Column) and f.optional)]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {field.name: _input(field) for field in signature.inputs},
    }
    return schema | {"required": required} if required else schema


def output_schema(signature: Signature) -> dict[str, Any]:
    """The schema of one output row."""
    return {
        "type": "object",
        "properties": {field.name: _output(field) for field in signature.outputs},
        "required": [field.name for field in signature.outputs],
    }


def example_row(signature: Signature) -> dict[str, Any]:
    """One valid input row, made up from ranges and categories; never a row of the training data."""
    return {field.name: _example(field) for field in signature.inputs}


def _input(field: Field) -> dict[str, Any]:
    if isinstance(field, Tensor):
        return _nested(field, nullable=False)
    schema = dict(_COLUMNS[field.type])
    if field.nullable or field.optional:
        schema["nullable"] = True
    bounded = field.type in ("float", "int")
    if field.enforce and bounded:
        schema |= {
            key: value for key, value in (("minimum", field.minimum), ("maximum", field.maximum)) if value is not None
        }
    if field.private:
        return schema
    if field.enforce and field.categories and schema["type"] == "string":
        # OpenAPI 3.0 wants null among the values of a nullable enum.
        schema["enum"] = [*field.categories, *([None] if "nullable" in schema else [])]
    elif not field.enforce and (told := _told(field)):
        schema["description"] = told
    return schema


def _told(field: Column) -> str:
    if field.categories:
        more = len(field.categories) - _TOLD
        return f"seen in training: {', '.join(field.categories[:_TOLD])}{f' and {more} more' if more > 0 else ''}"
    if field.minimum is None and field.maximum is None:
        return ""
    if field.minimum is None:
        return f"seen in training: up to {field.maximum:g}"
    if field.maximum is None:
        return f"seen in training: from {field.minimum:g}"
    return f"seen in training: {field.minimum:g} to {field.maximum:g}"


def _output(field: Field) -> dict[str, Any]:
    if isinstance(field, Tensor):
        return _nested(field, nullable=field.non_finite)
    nullable = field.nullable or field.optional or field.non_finite
    return dict(_COLUMNS[field.type]) | ({"nullable": True} if nullable else {})


def _nested(field: Tensor, *, nullable: bool) -> dict[str, Any]:
    schema = _element(field.dtype)
    if nullable:
        schema["nullable"] = True
    for size in reversed(field.row_shape):
        schema = {"type": "array", "items": schema}
        if size != -1:
            schema |= {"minItems": size, "maxItems": size}
    return schema


def _element(dtype: str) -> dict[str, Any]:
    if dtype == "bool":
        return {"type": "boolean"}
    if dtype == "str":
        return {"type": "string"}
    if dtype.startswith("float"):
        return {"type": "number", "format": "double" if dtype == "float64" else "float"}
    bits = int(dtype.removeprefix("u").removeprefix("int"))
    if dtype.startswith("u"):
        return {"type": "integer", "minimum": 0, "maximum": 2**bits - 1}
    return {"type": "integer", "minimum": -(2 ** (bits - 1)), "maximum": 2 ** (bits - 1) - 1}


def _example(field: Field) -> Any:
    if isinstance(field, Tensor):
        value: Any = {"bool": False, "str": "text"}.get(field.dtype, 0.0 if field.dtype.startswith("float") else 0)
        for size in reversed(field.row_shape):
            value = [value] * max(size, 1)
        return value
    if field.type in ("str", "category") and field.categories and (field.enforce or not field.private):
        return field.categories[0]
    if field.type in ("float", "int") and (field.enforce or not field.private):
        return _within(field)
    return _EXAMPLES[field.type]


def _within(field: Column) -> float | int:
    """A number in the middle of the range, short where that is possible."""
    low = field.minimum if field.minimum is not None else field.maximum
    high = field.maximum if field.maximum is not None else field.minimum
    if low is None or high is None:
        return 0 if field.type == "int" else 0.0
    middle = low + (high - low) / 2
    if field.type == "int":
        return min(max(round(middle), -(2**63)), 2**63 - 1)
    short = float(f"{middle:.4g}")
    return short if low <= short <= high else middle
