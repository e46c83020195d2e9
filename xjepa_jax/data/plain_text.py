"""Makes untrusted text safe: one line on a terminal, and no formula in a spreadsheet."""

from __future__ import annotations

_FORMULA = "=+-@"
_MARK = "'"


def one_line(text: str) -> str:
  """The text with line ends and whatever else a terminal would obey as escapes, such as \\n."""
  return "".join(
    each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
  )


def for_spreadsheet(text: str) -> str:
  """The text as a cell that a spreadsheet does not take for a formula.

  One apostrophe comes before a cell that would be one, and before one that begins with an
  apostrophe, so that whoever takes one away from a cell's beginning has the text again.
  """
  begins = text.lstrip()[:1]
  return _MARK + text if begins and begins in _FORMULA + _MARK else text


def from_spreadsheet(cell: str) -> str:
  """What `for_spreadsheet` was given."""
  return cell[1:] if cell.startswith(_MARK) else cell
