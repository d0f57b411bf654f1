"""Whole translations: the same bytes after kills and in other orders, counts that add up."""

import collections
import json
import multiprocessing
import random
import re

import pytest
import seqio
import tensorflow_datasets as tfds

from aya_train.tasks.building import records, work_runner
from aya_train.tasks.rights import provenance
from aya_train.tasks.user import user_data
from aya_train.translation import (
  row_translation,
  translated_shards,
  translation_jobs,
  translation_output,
  translation_run,
)
from aya_train.translation.engines import Identity

pytest.importorskip('sentencex', reason='needs the extra `translate`')

LICENSE = 'Apache License 2.0'
SOURCE = translation_run.Source('quiz', 'eng', LICENSE, 'its authors')
SPEC = translation_jobs.EngineSpec()
OPEN = {
  'thresholds': {'default': {'copied_from': 10**6, 'untranslated_from': 10**6, 'language': False}}
}


def rows(count=23):
  return [
    {
      'inputs': f'Question {i} of Dr. Smith. Is {{x}} right?\n- yes\n- no way\n```\ncode {i}\n```',
      'targets': 'no way',
      'id': str(i),
    }
    for i in range(count)
  ]


class Reversing(Identity):
  """Turns words around; drops marks, numbers and more of some sentences."""

  def translate(self, sentences, source, target):
    self.calls += len(sentences)
    return [self.one(s) for s in sentences]

  def one(self, sentence):
    if 'Question 3 ' in sentence:
      return None
    if 'Question 4 ' in sentence:
      return 'nothing left'
    if '[1] right' in sentence:
      return 'is it right'
    return ' '.join(w if any(c.isdigit() for c in w) else w[::-1] for w in sentence.split())


@pytest.fixture
def engine(monkeypatch):
  made = Reversing()
  monkeypatch.setattr(translation_jobs, '_opened', lambda *args: made)
  return made


def contents(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def shard_rows(folder, split):
  builder = tfds.builder_from_directory(str(translated_shards.folder(folder, 'quiz_translated')))
  rows = tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))
  return [{k: v.decode() for k, v in row.items()} for row in rows]


def run(output, targets=('yor', 'tha'), **options):
  options = {'settings': OPEN, 'rows_of_unit': 5, 'progress': lambda line: None} | options
  return translation_run.translate(rows(), SOURCE, targets, output, SPEC, **options)


def test_a_killed_translation_goes_on_to_the_same_bytes(engine, tmp_path, monkeypatch):
  run(tmp_path / 'whole')
  draw = random.Random(0)

  def shuffled(function, arguments):
    def dying(*args):
      if draw.random() < 0.3:
        raise KeyboardInterrupt
      return function(*args)

    arguments = list(arguments)
    draw.shuffle(arguments)
    return work_runner.here(dying, arguments)

  for _ in range(100):
    try:
      run(tmp_path / 'killed', runner=shuffled)
      break
    except KeyboardInterrupt:
      assert not (tmp_path / 'killed' / translation_output.MANIFEST).exists()
  assert contents(tmp_path / 'killed') == contents(tmp_path / 'whole')
  before = engine.calls
  run(tmp_path / 'killed')
  assert engine.calls == before


def test_other_rows_settings_or_an_engine_of_another_kind_are_refused(engine, tmp_path):
  run(tmp_path)
  with pytest.raises(ValueError, match='other settings'):
    run(tmp_path, settings=OPEN | {'longest': 50})
  with pytest.raises(ValueError, match='other rows'):
    translation_run.translate(
      rows(22), SOURCE, ['yor'], tmp_path, SPEC, settings=OPEN, rows_of_unit=5
    )
  with pytest.raises(ValueError, match='has no rows'):
    translation_run.translate([], SOURCE, ['yor'], tmp_path / 'new', SPEC)


def test_rejects_are_kept_with_their_reasons_and_counted(engine, tmp_path):
  report = run(tmp_path)
  for target in ('yor', 'tha'):
    counts = report['languages'][target]
    lines = (tmp_path / 'rejects' / f'{target}.jsonl').read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert collections.Counter(r['reason'] for r in found) == counts['rejected']
    assert counts['rejected'] == {'lost_numbers': 1, 'unfinished': 1}
    assert {r['row']['id'] for r in found} == {'3', '4'}
    assert counts['rows'] == 23 == counts['accepted'] + len(found)
    accepted = shard_rows(tmp_path, f'train_{target}')
    assert len(accepted) == counts['accepted']
    for row in accepted:
      assert f'```\ncode {row["id"]}\n```' in row['inputs'] and '{x}' in row['inputs']
      assert f'\n- {row["targets"]}\n' in row['inputs']  # the answer is one of the options
      assert row['targets'] == 'on yaw' and row['language_code'] == target


def test_a_sentence_is_translated_once_and_again_in_fragments_if_it_lost_a_mark(engine):
  source, target = engine.languages(['eng', 'yor'])
  settings = row_translation.Settings(thresholds={})
  results, counts = row_translation.translate(
    [{'inputs': 'Is {x} right?', 'targets': 'Is {x} right?'}] * 3, engine, source, target, settings
  )
  assert (counts.sentences, counts.unique, counts.retried) == (6, 1, 1)
  assert engine.calls == 3  # the sentence, and its fragments before and after the field
  assert results[0].row['inputs'] == 'sI {x} ?thgir'


class Listing(Reversing):
  """Keeps what it was given."""

  def __init__(self):
    super().__init__()
    self.given = []

  def translate(self, sentences, source, target):
    self.given += sentences
    return super().translate(sentences, source, target)


@pytest.mark.parametrize('sample', [0, 9])
@pytest.mark.parametrize('way_back', [False, True])
def test_a_sentence_is_translated_once_in_a_run(monkeypatch, tmp_path, sample, way_back):
  engine, back = Listing(), Listing()
  found = {'identity': engine, 'back': back}
  monkeypatch.setattr(translation_jobs, '_opened', lambda kind, *args: found[kind])
  monkeypatch.setattr(translation_run, '_rate', lambda *args: 1.0)  # it translates a sample
  options = {'back': translation_jobs.EngineSpec('back')} if way_back else {}
  report = run(tmp_path, sample=sample, targets=['yor'], **options)
  assert engine.given and bool(back.given) == way_back
  for each in (engine, back):
    assert len(each.given) == len({*each.given})
  counts = report['languages']['yor']
  assert counts['rows'] == (sample or 23) and counts['unique'] == counts['rows'] + 3
  assert counts['sentences'] == 5 * counts['rows']


def test_what_comes_out_is_a_data_set_with_both_licenses(engine, tmp_path):
  run(tmp_path, rights=translation_run.Rights('CC BY-NC 4.0'))
  names = user_data.add_tables([tmp_path / translation_output.TABLE])
  try:
    assert names == ['quiz_translated.yor', 'quiz_translated.tha', 'quiz_translated']
    (row, *_) = (
      seqio.TaskRegistry.get('quiz_translated.yor').source.get_dataset('train').as_numpy_iterator()
    )
    assert row['targets'] == b'on yaw'
    record = provenance.record_of('quiz_translated.yor')
    assert record.rights.use == 'non-commercial'
    assert record.model_generated_by == ('identity',)
  finally:
    seqio.MixtureRegistry.remove(names.pop())
    for name in names:
      seqio.TaskRegistry.remove(name)


def test_the_policy_is_that_of_source_and_model(engine, tmp_path):
  with pytest.raises(ValueError, match=r'CC BY-NC 4\.0 is non-commercial'):
    run(tmp_path, rights=translation_run.Rights('CC BY-NC 4.0', policy='commercial'))
  assert not list(tmp_path.iterdir())


def test_languages_can_be_added_to_what_is_finished(engine, tmp_path):
  run(tmp_path / 'together', ('yor', 'tha'))
  run(tmp_path / 'added', ('yor',))
  before = engine.calls
  run(tmp_path / 'added', ('tha',))
  assert engine.calls - before < before * 1.1  # Yoruba is not made again
  assert contents(tmp_path / 'added') == contents(tmp_path / 'together')
  run(tmp_path / 'added', ('yor',))
  assert contents(tmp_path / 'added') == contents(tmp_path / 'together')


def test_each_language_has_a_sample_of_its_own(engine, tmp_path):
  report = run(tmp_path, sample=9)
  kept = []
  for target in ('yor', 'tha'):
    assert report['languages'][target]['rows'] == 9
    of_units = [
      translation_jobs.read(path)[0]
      for path in sorted((tmp_path / translation_run.WORK / 'units' / target).glob('*.jsonl'))
    ]
    kept.append([result['row']['id'] for results in of_units for result in results])
    assert kept[-1] == sorted(set(kept[-1]), key=int)
  assert kept[0] != kept[1]
  assert run(tmp_path / 'all', sample=100)['languages']['yor']['rows'] == 23


@pytest.mark.parametrize('pattern', ['[0-9]*.jsonl', 'repeated/*.jsonl'])
@pytest.mark.parametrize(('old', 'new'), [(b'o', b'n'), (b'"tokens": ', b'"tokens": 1')])
def test_another_letter_or_count_in_a_unit_is_damage(engine, tmp_path, pattern, old, new):
  run(tmp_path)
  units = tmp_path / translation_run.WORK / 'units' / 'yor'
  path = next(p for p in sorted(units.glob(pattern)) if translation_jobs.read(p)[0])
  content = path.read_bytes()
  path.write_bytes(content.replace(old, new, 1))
  with pytest.raises(ValueError, match=r'is damaged .*not what was written.*remove it and give'):
    translation_jobs.read(path)
  path.write_bytes(re.sub(rb', "sha256": "[0-9a-f]+"', b'', content))  # of an earlier version
  assert translation_jobs.read(path)[0]


def test_what_a_row_lacks_is_counted_and_leaves_the_output_readable(engine, tmp_path):
  given = [
    {'inputs': 'Who is it?', 'targets': '', 'n': 1},
    {'inputs': None, 'targets': 'Ada', 'n': 2},
    {'inputs': 'half a pair \ud800', 'targets': 'Ada', 'n': 3},
    {'inputs': ' \n', 'targets': 'Ada', 'n': 4},
    {'inputs': 'Who?', 'targets': 'Ada', 'n': 5, 'more': ['a', None]},
  ]
  report = translation_run.translate(
    given, SOURCE, ['yor'], tmp_path, SPEC, settings=OPEN, progress=lambda line: None
  )
  assert report['languages']['yor']['rejected'] == {'empty_source': 4}
  (row,) = [
    row
    for path in tmp_path.glob('quiz_translated/1.0.0/*tfrecord*')
    for _, row in records.read(path)
  ]
  assert (row['n'], json.loads(row['more']), row['inputs']) == (5, ['a', None], '?ohW')
  with pytest.raises(ValueError, match=r"row 2: no text in \['targets'\]"):
    translation_run.translate(
      [given[4], {'inputs': 'x'}], SOURCE, ['yor'], tmp_path / 'new', SPEC, settings=OPEN
    )


class Forgetful(Identity):
  """The way back of `Reversing`, which knows no foxes."""

  def translate(self, sentences, source, target):
    return ['' if 'xof' in s else ' '.join(w[::-1] for w in s.split()) for s in sentences]


def test_the_way_back_and_a_scorer_are_gates_with_their_figures(monkeypatch, tmp_path):
  engines = {'there': Reversing(), 'back': Forgetful()}
  monkeypatch.setattr(translation_jobs, '_opened', lambda kind, *args: engines[kind])
  given = [
    {'inputs': 'the dog', 'targets': 'barks'},
    {'inputs': 'the fox', 'targets': 'fox'},
    {'inputs': 'a bad one', 'targets': 'it'},
  ]
  options = {
    'settings': OPEN | {'scorer': f'{__name__}:worst_of_bad', 'columns': ['inputs', 'targets']},
    'back': translation_jobs.EngineSpec('back'),
  }
  options['settings']['thresholds'] = {
    'default': OPEN['thresholds']['default'] | {'min_score': 0.5}
  }
  there = translation_jobs.EngineSpec('there')
  rights = translation_run.Rights('MIT', 'CC BY-NC-SA 4.0')
  with pytest.raises(ValueError, match='--scorer_license'):
    translation_run.translate(
      given, SOURCE, ['yor'], tmp_path, there, **options, rights=translation_run.Rights('MIT')
    )
  strict = translation_run.Rights('MIT', 'CC BY-NC-SA 4.0', 'commercial')
  with pytest.raises(ValueError, match=r'the scorer .* is non-commercial'):
    translation_run.translate(given, SOURCE, ['yor'], tmp_path, there, **options, rights=strict)
  report = translation_run.translate(
    given, SOURCE, ['yor'], tmp_path, there, **options, rights=rights, progress=print
  )
  counts = report['languages']['yor']
  assert counts['rejected'] == {'back_translation': 1, 'low_score': 1}
  assert counts['chrf']['p95'] == 100.0 and counts['score'] == {'p5': 0.1, 'p50': 0.9, 'p95': 0.9}
  manifest = json.loads((tmp_path / translation_output.MANIFEST).read_text())
  assert manifest['translated_by']['scorer']['license'] == 'CC BY-NC-SA 4.0'
  assert manifest['translated_by']['back'] == {'engine': 'identity'}
  assert 'CC BY-NC-SA 4.0' in (tmp_path / translation_output.CARD).read_text()


def worst_of_bad(sources, translations, source, target):
  assert (source, target) == ('eng', 'yor') and len(sources) == len(translations)
  return [0.1 if 'bad' in text else 0.9 for text in sources]


def test_a_worker_keeps_its_device(monkeypatch):
  opened = []
  monkeypatch.setattr(translation_jobs, '_opened', lambda kind, options, i: opened.append(i))
  spec = translation_jobs.EngineSpec('identity', {}, (4, 7))
  for unit in range(3):
    spec.open(unit)
  monkeypatch.setattr(multiprocessing.current_process(), '_name', 'SpawnProcess-2')
  for unit in range(3):
    spec.open(unit)
  assert opened == [4, 7, 4, 7, 7, 7]


def test_the_estimate_says_what_it_will_cost(engine, tmp_path):
  said = []
  assert run(tmp_path, dry_run=True, price=2.0, workers=2, progress=said.append) == {}
  assert 'at 2.0/h' in said[-1] and 'x 2 workers' in said[-1]
  assert not (tmp_path / translation_output.MANIFEST).exists()
