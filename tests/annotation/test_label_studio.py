import json
from xml.etree import ElementTree

import pytest

from aya_train.annotation import batches, exports, label_studio
from tests.annotation import test_batches


def batch(language='arb', mode=batches.PAIRS):
  if mode == batches.PAIRS:
    items = batches.pairs(test_batches.answered(4, language), 4, 0)
  else:
    rows = [batches.DataRow('xp3', 'xp3.ar', language, f'p{i}', f'a{i}') for i in range(4)]
    items = batches.data_items(rows, 0)
  [made] = batches.split(mode, items, False)
  return made


@pytest.mark.parametrize('mode', [batches.PAIRS, batches.DATA])
def test_the_configuration_shows_what_tasks_hold_and_not_the_key(mode):
  made = batch(mode=mode)
  root = ElementTree.fromstring(label_studio.config(made))
  shown = {e.get('value')[1:] for e in root.iter() if (e.get('value') or '').startswith('$')}
  for task in label_studio.tasks(made):
    assert shown < {*task['data']} and 'key' not in shown
  named = {e.get('name') for e in root.iter() if e.get('name')}
  for control in root.iter():
    assert {*(control.get('toName') or '').split(',')} - {''} <= named
  ways = [e.get('style') for e in root.iter('View') if 'direction' in (e.get('style') or '')]
  assert ways and all('direction: rtl' in way for way in ways)


def result(name, kind, **value):
  return {'from_name': name, 'to_name': 'first', 'type': kind, 'value': value}


def exported(made, results):
  return [
    {'id': n, **task, 'annotations': [{'id': n, 'completed_by': 7, 'lead_time': 3.5, 'result': r}]}
    for n, (task, r) in enumerate(zip(label_studio.tasks(made), results, strict=True), 1)
  ]


def read(tmp_path, values):
  path = tmp_path / 'export.json'
  path.write_text(json.dumps(values))
  return exports.read([path])


def test_both_forms_of_an_export_give_the_same_verdicts(tmp_path):
  made = batch()
  full = exported(
    made,
    [
      [result('preference', 'pairwise', selected='left')],
      [
        result('preference', 'pairwise', selected='right'),
        result('comment', 'textarea', text=['why']),
      ],
      [result('equal', 'choices', choices=['equally good'])],
      [result('equal', 'choices', choices=['both bad'])],
    ],
  )
  flat = [
    {**task['data'], 'annotator': 7, 'lead_time': 3.5, **values}
    for task, values in zip(
      label_studio.tasks(made),
      [
        {'preference': {'selected': 'left'}},
        {'preference': json.dumps({'selected': 'right'}), 'comment': 'why'},
        {'equal': 'equally good'},
        {'equal': {'choices': ['both bad']}},
      ],
      strict=True,
    )
  ]
  found = read(tmp_path, full).verdicts
  assert found == read(tmp_path, flat).verdicts
  assert [v.first_won for v in found] == [1, 0, 0.5, 0.5]
  assert [v.flags for v in found] == [[], [], [], ['both_bad']]
  assert {(v.annotator, v.by, v.seconds) for v in found} == {('Label Studio 7', 'human', 3.5)}
  assert found[1].raw == 'why'
  for v, item in zip(found, made.items, strict=True):
    shown = [v.answer_a, v.answer_b][:: 1 if v.order == 'ab' else -1]
    assert shown == [*item.texts]


def test_annotations_that_were_skipped_or_say_nothing_are_left_out(tmp_path):
  full = exported(batch(), [[result('preference', 'pairwise', selected='left')], [], [], []])
  full[0]['annotations'][0]['was_cancelled'] = True
  assert read(tmp_path, full).verdicts == []


def test_a_rating_is_what_was_done_to_the_text(tmp_path):
  made = batch(mode=batches.DATA)
  edit = [result('decision', 'choices', choices=['approve'])]
  edit.append(result('edited_answer', 'textarea', text=['better']))
  plain = [result('decision', 'choices', choices=['edit'])]
  skip = [result('decision', 'choices', choices=['skip'])]
  found = read(tmp_path, exported(made, [edit, plain, skip, plain])).ratings
  assert [r.decision for r in found] == ['edited', 'approved', 'skipped', 'approved']
  assert found[0].edited_answer == 'better' and found[0].edited_prompt == found[0].prompt


def test_an_export_of_another_project_is_refused_by_its_place(tmp_path):
  with pytest.raises(ValueError, match='task 1 of the export'):
    read(tmp_path, [{'id': 1, 'data': {'text': 'x'}, 'annotations': []}])


def test_null_is_nothing_and_what_people_wrote_is_a_text_whatever_it_looks_like(tmp_path):
  made = batch(mode=batches.DATA)
  [none, *others] = exported(made, [[], [], [], []])
  none['annotations'] = None
  others[0]['annotations'][0]['result'] = None
  assert read(tmp_path, [none, *others]).ratings == []
  flat = {**label_studio.tasks(made)[0]['data'], 'decision': 'edit', 'edited_answer': '{"a": 1}'}
  assert [r.edited_answer for r in read(tmp_path, [flat]).ratings] == ['{"a": 1}']
