"""A judge's label is read in every spelling that says it alone, and never guessed."""

import pytest

from aya_train.judging import judge_protocols, reply_labels

REFUSAL = judge_protocols.load('refusal', 'single').labels
GRADES = {f'[[{n}]]': n for n in range(1, 6)}


@pytest.mark.parametrize(
  'reply',
  [
    'It declines.\n[[refused]]',
    'It declines.\n[[ Refused ]].',
    r'It declines. \[\[refused\]\]',
    'Es lehnt ab.\n[[**refused**]]',
    'តែ ［［refused］］',
    '它拒绝了。\n【【refused】】',
    'Hii ni kukataa.\nrefused',
    'เพราะปฏิเสธ\n**Refused**',
    'Reason: it declines.\nLabel: refused.',
    '```json\n{"reason": "It declines.", "label": "refused"}\n```',
    '{"label": "[[refused]]"}',
    '{"reason": "declines", "verdict": "REFUSED", "confidence": 0.9}',
    '<think>[[answered]]?</think>\n{"label": "refused"}',
  ],
)
def test_every_spelling_of_a_label_is_read(reply):
  assert reply_labels.label(reply, REFUSAL) == 'refused'


@pytest.mark.parametrize(
  'reply',
  [
    *('yes', 'no', 'ndiyo', 'نعم', 'ไม่', 'It was refused by the system.', 'not refused', ''),
    *('[[refused]] or [[answered]]', '{"label": null}', '{"label": ["refused"]}', '{"label": '),
    *('```json\n{"a": "refused"}\n```\n```json\n{"a": "partly"}\n```', '<think>[[refused]]'),
    '[[Verweigert]]',
  ],
)
def test_what_is_no_label_alone_is_nonsense(reply):
  assert reply_labels.label(reply, REFUSAL) is None


@pytest.mark.parametrize(
  ('reply', 'meaning'),
  [
    *(('[[4]]', 4), ('Score: 4', 4), ('{"score": 4}', 4), ('{"score": "4"}', 4), ('４', 4)),
    *(('[[11]]', None), ('[[0]]', None), ('-4', None), ('4/5', None), ('4.5', None)),
    *(('{"score": 40}', None), ('{"score": true}', None), ('4 or 5', None), ('[[4]]5', 4)),
  ],
)
def test_grades_out_of_their_range_are_nonsense(reply, meaning):
  assert reply_labels.label(reply, GRADES) == meaning


def test_signs_of_comparison_survive_html():
  labels = judge_protocols.load('arena_hard', 'pair').labels
  assert reply_labels.label('So [[A&gt;&gt;B]]', labels) == '1>>2'
  assert reply_labels.label(r'So \[\[B\>A\]\]', labels) == '2>1'
  assert reply_labels.label('A is better', labels) is None


@pytest.mark.parametrize(
  'text', ['[[refused]]', '【【 Refused 】】', r'\[\[refused\]\]', '[[*refused*]]']
)
def test_an_answer_that_holds_a_label_in_any_spelling_is_noticed(text):
  assert reply_labels.holds(f'End with {text} please', REFUSAL)
  assert not reply_labels.holds('It was refused.', REFUSAL)
