import copy
import dataclasses
import json

import pytest

from aya_train.annotation import batches, exports, label_studio, pair_verdicts
from aya_train.report import rating_figures
from tests.annotation import test_batches, test_label_studio


def page_export(items, verdicts, who='Ada', **more):
  done = [
    {'id': i.id, 'prompt': i.prompt, 'texts': [*i.texts], 'key': i.key, 'verdict': v, **more}
    for i, v in zip(items, verdicts, strict=False)
  ]
  return {'format': batches.FORMAT, 'version': 1, 'annotator': who, 'annotations': done}


def write(path, values):
  path.write_text(json.dumps(values))
  return path


def test_verdicts_are_about_systems_and_survive_a_round_through_a_file(tmp_path):
  items = batches.pairs(test_batches.answered(20, 'arb'), 20, 0)
  said = ['first', 'second', 'tie', 'both_bad'] * 5
  path = write(tmp_path / 'ada.json', page_export(items, said))
  found = exports.read([path]).verdicts
  expected = {'first': (1, 0), 'second': (0, 1), 'tie': (0.5, 0.5), 'both_bad': (0.5, 0.5)}
  for item, v, verdict in zip(items, found, said, strict=True):
    first, second = batches.revealed(item.key)['systems']
    assert (v.score_of(first), v.score_of(second)) == expected[verdict]
    assert v.answer_of(first) == item.texts[0]
    assert v.language == 'ara'
  assert len({v.key for v in found}) == 20
  lines = tmp_path / 'verdicts.jsonl'
  lines.write_text(''.join(json.dumps(v.to_dict()) + '\n' for v in found))
  assert pair_verdicts.read(lines) == found


def test_a_later_export_replaces_what_the_same_person_said_before(tmp_path):
  items = batches.pairs(test_batches.answered(3), 3, 0)
  early = write(tmp_path / '1.json', page_export(items, ['first']))
  late = write(tmp_path / '2.json', page_export(items, ['second', 'tie', 'tie']))
  other = write(tmp_path / '3.json', page_export(items, ['first'], who='Grace'))
  found = exports.read([early, late, other]).verdicts
  assert [(v.annotator, v.first_won) for v in found] == [
    ('Ada', 0.0),
    ('Ada', 0.5),
    ('Ada', 0.5),
    ('Grace', 1.0),
  ]


def test_a_prompt_that_comes_twice_is_judged_twice(tmp_path):
  items = batches.pairs(test_batches.answered(1), 1, 0)
  [v] = exports.read([write(tmp_path / 'a.json', page_export(items, ['tie']))]).verdicts
  twice = [dataclasses.replace(v, index=i) for i in range(2)]
  assert pair_verdicts.without_repeats([*twice, *twice]) == twice


@pytest.mark.parametrize(
  ('values', 'told'),
  [
    ({'annotations': []}, 'neither an export'),
    ({'format': 'aya-train annotations', 'annotator': 3, 'annotations': []}, 'neither an export'),
    ('text', 'neither an export'),
  ],
)
def test_other_files_are_refused(tmp_path, values, told):
  with pytest.raises(ValueError, match=told):
    exports.read([write(tmp_path / 'x.json', values)])


def test_damage_is_named_by_file_and_place(tmp_path):
  items = batches.pairs(test_batches.answered(3), 3, 0)
  torn = write(tmp_path / 'torn.json', page_export(items, ['tie'] * 3))
  torn.write_text(torn.read_text()[:-20])
  with pytest.raises(ValueError, match=r'torn.json: no JSON'):
    exports.read([torn])
  values = page_export(items, ['tie', 'tie', 'perhaps'])
  with pytest.raises(ValueError, match=r"x.json: annotation 3 .*'perhaps'"):
    exports.read([write(tmp_path / 'x.json', values)])
  values = page_export(items, ['tie'] * 3)
  values['annotations'][1]['key'] = '####'
  with pytest.raises(ValueError, match=r'annotation 2 .*key'):
    exports.read([write(tmp_path / 'x.json', values)])
  with pytest.raises(FileNotFoundError, match=r'none.json is not there'):
    exports.read([tmp_path / 'none.json'])


JUNK = (None, 1.5, True, 'x', [], {}, [None], [[]], [{}], '{', float('inf'), {'choices': [{}]})


def places(value, path=()):
  """The path of every value inside of a value."""
  yield path
  if isinstance(value, dict | list):
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in [*inner]:
      yield from places(each, (*path, key))


def changed(value, path, new):
  if not path:
    return new
  value = copy.deepcopy(value)
  inner = value
  for key in path[:-1]:
    inner = inner[key]
  inner[path[-1]] = new
  return value


def export_of(kind):
  pair, data = test_label_studio.batch(), test_label_studio.batch(mode=batches.DATA)
  result = test_label_studio.result
  if kind == 'page':
    return page_export(pair.items[:1], ['tie'], comment='why')
  if kind == 'pairs':
    results = [[result('preference', 'pairwise', selected='left')], [], [], []]
    return test_label_studio.exported(pair, results)[:1]
  if kind == 'data':
    chosen = result('decision', 'choices', choices=['approve'])
    edited = result('edited_answer', 'textarea', text=['better'])
    return test_label_studio.exported(data, [[chosen, edited], [], [], []])[:1]
  values = {'annotator': 7, 'lead_time': 3.5, 'decision': 'edit', 'edited_answer': 'better'}
  return [{**label_studio.tasks(data)[0]['data'], **values}]


@pytest.mark.parametrize('kind', ['page', 'pairs', 'data', 'flat', 'key', 'line'])
def test_whatever_stands_at_any_place_is_read_or_refused_with_the_file(tmp_path, kind):
  page = export_of('page')
  path = tmp_path / ('x.jsonl' if kind == 'line' else 'x.json')
  if kind == 'line':
    whole = exports.read([write(tmp_path / 'x.json', page)]).verdicts[0].to_dict()
  elif kind == 'key':
    whole = batches.revealed(page['annotations'][0]['key'])
  else:
    whole = export_of(kind)
  refused: list[str] = []
  for place in places(whole):
    for junk in JUNK:
      values = changed(whole, place, junk)
      if kind == 'key':
        values = changed(page, ('annotations', 0, 'key'), batches.hidden(values))
      try:
        found = exports.read([write(path, values)])
      except ValueError as error:
        refused.append(str(error))
      else:
        assert len({v.item for v in found.verdicts}) <= 1
        rating_figures.by(found.ratings, lambda r: r.source + r.annotator)
  assert len(refused) > 10 and all(said.startswith(str(path)) for said in refused)


def test_a_line_that_is_no_verdict_is_named_and_a_torn_one_left_out(tmp_path, caplog):
  items = batches.pairs(test_batches.answered(2), 2, 0)
  found = exports.read([write(tmp_path / 'a.json', page_export(items, ['tie', 'first']))]).verdicts
  lines = [json.dumps(v.to_dict()) for v in found]
  path = tmp_path / 'verdicts.jsonl'
  path.write_text('\n'.join([*lines, lines[0][:30]]))
  assert exports.read([tmp_path]).verdicts == found
  assert 'line 3 is torn' in caplog.text
  path.write_text(lines[0].replace('A=B', 'A'))
  with pytest.raises(ValueError, match=r'verdicts.jsonl, line 1: verdict is one of'):
    exports.read([path])
