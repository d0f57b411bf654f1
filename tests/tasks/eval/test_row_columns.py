import pytest

from aya_train.tasks.eval import row_columns
from aya_train.tasks.eval.row_columns import EvalDataError


def test_columns_are_checked_by_file_and_row():
  row = {'text': ' ', 'number': '3', 'half': 1.5, 'word': ' cause '}
  assert row_columns.integer(row, 'number', 'f row 1') == 3
  assert row_columns.choice(row, 'word', 'f row 1', ('cause', 'effect')) == 'cause'
  for check, message in [
    (lambda: row_columns.text(row, 'text', 'f row 1'), "f row 1: expected text in 'text', got '"),
    (lambda: row_columns.text(row, 'x', 'f row 1'), 'got only .*number'),
    (lambda: row_columns.integer(row, 'half', 'f row 1'), 'expected a whole number .*1.5'),
    (lambda: row_columns.integer(row, 'number', 'f', (0, 1)), r'among \[0, 1\], got 3'),
    (lambda: row_columns.choice(row, 'word', 'f row 1', ('x',)), r"among \['x'\], got ' cause"),
  ]:
    with pytest.raises(EvalDataError, match=message):
      check()


@pytest.mark.parametrize(
  ('field', 'text'),
  [
    ('"He said ""hi""."', 'He said "hi".'),
    ('"Hi" he said, "you"', '"Hi" he said, "you"'),
    ('"', '"'),
    ('', ''),
    ('plain', 'plain'),
  ],
)
def test_fields_that_were_quoted_as_csv_lose_their_quotes(field, text):
  assert row_columns.unquoted(field) == text
