"""What a copy would answer: the templates read backwards give what was put into them."""

import pytest

from aya_train.tasks.cldr import cldr_rows, cldr_subjects, cldr_tasks


@pytest.mark.parametrize(
  ('kind', 'prompt', 'subject'),
  [
    ('date_format', 'Write Monday, 6 June 2044, in full in Russian.', '6 June 2044'),
    (
      'date_format',
      'Write the date 1972-07-18, a Tuesday, in Thai with its weekday.',
      '1972-07-18',
    ),
    ('date_format', 'Write the date 1972-07-18 in Mongolian.', '1972-07-18'),
    ('number_format', 'Format 683853.07 by the rules of Malayalam.', '683853.07'),
    ('list_format', 'How are these listed in Malayalam? 94 | 28', '94 | 28'),
    ('unit_format', 'Write "13 years" in Igbo.', '13 years'),
    ('identify_language', 'In what language is "funt Sv. Helene" written?', 'funt Sv. Helene'),
    ('month_neighbour', 'In Irish, which month comes after Márta?', 'Márta'),
    ('territory_name', 'In Yoruba, what is France called?', 'France'),
    ('date_format', 'Something else', 'Something else'),
    ('unheard_of', 'Write "13 years" in Igbo.', 'Write "13 years" in Igbo.'),
  ],
)
def test_a_copy_is_what_the_prompt_asks_about(kind, prompt, subject):
  assert cldr_subjects.subject(kind, prompt) == subject


def test_every_prompt_asks_about_something_in_it(rows):
  for row in rows[::7]:
    subject = cldr_subjects.subject(row.kind, row.inputs)
    assert subject != row.inputs and subject in row.inputs, row


def test_kinds_that_follow_rules_are_those_with_further_rows(rows):
  assert tuple(cldr_tasks.ANSWER_KINDS.ruled) == cldr_rows.RULED
  assert {k for k in cldr_rows.KINDS if k.endswith('_format') or k.startswith('identify_')} == set(
    cldr_rows.RULED
  )
  rates = cldr_tasks.SMOKE_RATES
  assert sum(rates[kind] for kind in cldr_rows.RULED) > 0.9 * sum(rates.values())
