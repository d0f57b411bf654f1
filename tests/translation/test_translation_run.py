"""Whole translations: the same bytes after kills and in other orders, counts that add up."""

import collections
import json
import random

import pytest
import seqio
import tensorflow_datasets as tfds

from aya_train.tasks.building import work_runner
from aya_train.tasks.rights import provenance
from aya_train.tasks.user import user_data
from aya_train.translation import (
  row_translation,
  translated_shards,
  translation_output,
  translation_run,
  translation_units,
)
from aya_train.translation.engines import Identity

pytest.importorskip('sentencex', reason='needs the extra `translate`')

LICENSE = 'Apache License 2.0'
SOURCE = translation_run.Source('quiz', 'eng', LICENSE, 'its authors')
SPEC = translation_units.EngineSpec()
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
  monkeypatch.setattr(translation_units, '_opened', lambda *args: made)
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
  original = translation_units.run

  def dying(*args):
    if draw.random() < 0.3:
      raise KeyboardInterrupt
    return original(*args)

  def shuffled(function, arguments):
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
