"""Any finding as tables, so that a section without a figure of its own is still in the report."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pydantic import BaseModel

from synthehr.reporting.blocks import Block, Cell, Table

__all__ = ["generic_blocks", "shown", "undrawn"]

_MOST_ROWS = 200


def shown(value: object) -> str:
    """A value as a reader may see it; numbers to three significant digits."""
    if value is None:
        return "\u2013"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}".replace("-", "\u2212")
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) == 2 and all(isinstance(end, float) for end in value):
            return f"{shown(value[0])} to {shown(value[1])}"
        return ", ".join(shown(one) for one in value)
    return str(value)


def generic_blocks(name: str, finding: object) -> list[Block]:
    """Tables of everything in a finding but long series of numbers.

    Args:
        name: of the finding, as the report's data names it.
        finding: a model, or a sequence of models of one kind.
    """
    if isinstance(finding, BaseModel):
        values = {key: getattr(finding, key) for key in type(finding).model_fields}
        plain = {key: value for key, value in values.items() if _is_plain(value)}
        blocks: list[Block] = []
        if plain:
            rows = tuple((Cell(text=_words(key)), Cell(text=shown(value))) for key, value in plain.items())
            blocks.append(Table(label=_words(name), head=("", "Found"), numbers=(False, True), rows=rows))
        for key, value in values.items():
            if key not in plain:
                blocks += generic_blocks(f"{name} {key}", value)
        return blocks
    if isinstance(finding, Sequence) and not isinstance(finding, str) and finding:
        first = finding[0]
        if isinstance(first, BaseModel):
            return [_table(name, [one for one in finding if isinstance(one, BaseModel)], type(first))]
    return []


def undrawn(finding: BaseModel, drawn: Collection[str]) -> list[Block]:
    """Tables of the fields of a finding that have no figure of their own, so that a new one is never missing."""
    fields = [field for field in type(finding).model_fields if field not in drawn]
    return [block for field in fields for block in generic_blocks(field, _listed(getattr(finding, field)))]


def _listed(value: object) -> object:
    """A bare value as a finding with one field would hold it."""
    return _Bare(value=value) if value is not None and _is_plain(value) else value


class _Bare(BaseModel):
    """A value that stands by itself."""

    value: str | int | float | tuple[str | float, ...]


def _table(name: str, items: Sequence[BaseModel], kind: type[BaseModel]) -> Table:
    keys = [key for key in kind.model_fields if all(_is_plain(getattr(item, key, None)) for item in items)]
    numbers = tuple(all(isinstance(getattr(item, key), int | float) for item in items) for key in keys)
    rows = tuple(tuple(Cell(text=shown(getattr(item, key))) for key in keys) for item in items[:_MOST_ROWS])
    left_out = f" The first {_MOST_ROWS} of {len(items)}." if len(items) > _MOST_ROWS else ""
    caption = f"{_words(name)}.{left_out}"
    head = tuple(_words(key) for key in keys)
    return Table(label=_words(name), head=head, numbers=numbers, rows=rows, caption=caption)


def _is_plain(value: object) -> bool:
    if value is None or isinstance(value, str | int | float):
        return True
    if isinstance(value, tuple):
        interval = len(value) == 2 and all(isinstance(end, float) for end in value)
        return interval or (0 < len(value) <= 3 and all(isinstance(one, str) for one in value))
    return False


def _words(name: str) -> str:
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
