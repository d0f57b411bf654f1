"""Scores of a reference beside prepared pairs: written in parts, bound, read with the pairs."""

import json

import numpy as np
import pytest
import seqio
import tensorflow as tf

from aya_train.data import batching, pair_features, prepared, reference_scores

TEXT = ('inputs', 'chosen', 'rejected')
LENGTHS = {'inputs': 6, 'chosen': 4, 'rejected': 4}
ROWS = [
  ([5, 6, 1], [7, 1], [8, 9, 1]),
  ([5, 1], [], [10, 1]),
  ([6, 6, 6, 1], [11, 12, 1], [13, 1]),
]
ABOUT = {
  'checkpoint': {'path': 'runs/sft', 'identity': 'abc'},
  'lengths': LENGTHS,
  'unrelated': True,
}


@pytest.fixture(scope='module')
def name():
  def examples(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    columns = {n: tf.ragged.constant([r[i] for r in ROWS]) for i, n in enumerate(TEXT)}
    return tf.data.Dataset.from_tensor_slices(columns).map(
      lambda x: {k: tf.cast(v, tf.int32) for k, v in x.items()}
    )

  feature = seqio.Feature(seqio.PassThroughVocabulary(96, eos_id=1), add_eos=False)
  seqio.TaskRegistry.add(
    'tests.scored',
    source=seqio.FunctionDataSource(examples, splits=('train',)),
    preprocessors=[],
    output_features=dict.fromkeys(TEXT, feature),
  )
  yield 'tests.scored'
  seqio.TaskRegistry.remove('tests.scored')


@pytest.fixture
def cfg(name, tmp_path):
  prepared.prepare_task(name, 'train', tmp_path)
  lengths = {**LENGTHS, 'unrelated': 4, 'reference': 10}
  return batching.DatasetConfig(
    *(name, lengths, 'train', 2),
    shuffle=False,
    prepared_dir=str(tmp_path),
    reference_checkpoint='runs/sft',
    reference=reference_scores.Reference('runs/sft', 'abc'),
  )


SCORES = -np.arange(15, dtype=np.float32).reshape(3, 5)


def task_of(cfg):
  (task,) = batching.prepared_tasks(batching.dataclasses.replace(cfg, reference=None)).values()
  return task


def write(cfg, about=ABOUT):
  where = reference_scores.folder(task_of(cfg), 'abc', LENGTHS, unrelated=about['unrelated'])
  first = reference_scores.ScoresWriter(where, 3)
  first.write(SCORES[:1])
  first.write(SCORES[1:2])
  again = reference_scores.ScoresWriter(where, 3)  # another process, after the first was killed
  assert again.done == 2
  again.write(SCORES[2:])
  again.finish(about)
  return where


def test_pairs_are_read_with_their_scores_and_the_answer_before(cfg):
  where = write(cfg)
  assert sorted(path.name for path in where.iterdir()) == ['manifest.json', 'scores.npy']
  (task,) = batching.prepared_tasks(cfg).values()
  np.testing.assert_array_equal(
    pair_features.from_integers(task[1]['reference'][None])[0, 0], SCORES[1]
  )
  assert [task[i]['unrelated'].tolist() for i in range(3)] == [[11, 12, 1], [7, 1], [10, 1]]
  batches = batching.train_iterator(
    cfg,
    converter=pair_features.AnswerPairFeatureConverter(
      tuple(cfg.task_feature_lengths), answers='either'
    ),
  )
  batch = next(batches)
  assert batch['reference'].shape == (2, 2, 5)
  assert batch['unrelated_target_tokens'].shape == (2, 4)
  # Another reference is another stream.
  assert 'abc' in task.manifest.definition


def test_a_length_that_leaves_nothing_to_compare_is_refused(cfg):
  lengths = {'inputs': 6, 'chosen': 1, 'rejected': 1}
  changes = {'task_feature_lengths': lengths, 'max_truncated_fraction': 1.0}
  short = batching.dataclasses.replace(
    cfg, split='train', reference_checkpoint=None, reference=None, **changes
  )
  converter = pair_features.AnswerPairFeatureConverter(tuple(lengths), answers='both')
  with pytest.raises(ValueError, match=r'rows have no chosen|the same tokens in 3 of 3 pairs'):
    batching.train_iterator(short, converter=converter)


def test_scores_with_more_serve_those_who_need_less(cfg):
  write(cfg)
  lengths = {n: x for n, x in cfg.task_feature_lengths.items() if n != 'unrelated'}
  found = batching.prepared_tasks(batching.dataclasses.replace(cfg, task_feature_lengths=lengths))
  assert 'unrelated' not in found['tests.scored'][0]


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'reference': reference_scores.Reference('other', 'def')}, r'no scores of .*other \(def\)'),
    ({'task_feature_lengths': LENGTHS | {'inputs': 5, 'reference': 5}}, 'has those of runs/sft'),
    ({'reference': reference_scores.Reference('gone', '')}, 'is not there, and no scores'),
  ],
)
def test_another_reference_is_refused(cfg, changes, message):
  write(cfg)
  with pytest.raises(FileNotFoundError, match=message):
    batching.prepared_tasks(batching.dataclasses.replace(cfg, **changes))


def test_a_reference_that_is_gone_is_known_by_its_path(cfg):
  write(cfg)
  gone = reference_scores.Reference('runs/sft', '')
  (task,) = batching.prepared_tasks(batching.dataclasses.replace(cfg, reference=gone)).values()
  assert task.reference_identity == 'abc'


def test_damage_is_named(cfg):
  where = write(cfg)
  content = (where / 'scores.npy').read_bytes()
  (where / 'scores.npy').write_bytes(content[:-4] + b'\0\0\0\1')
  with pytest.raises(ValueError, match=r'is not what was written\. Delete'):
    batching.prepared_tasks(cfg)
  (where / 'scores.npy').write_bytes(content)
  manifest = json.loads((where / 'manifest.json').read_text())
  (where / 'manifest.json').write_text(json.dumps({**manifest, 'format': 9}))
  with pytest.raises(ValueError, match='format 9, this program reads 2'):
    batching.prepared_tasks(cfg)


def test_a_flipped_bit_in_what_a_kill_left_is_scored_again(cfg, caplog):
  where = reference_scores.folder(task_of(cfg), 'abc', LENGTHS, unrelated=True)
  first = reference_scores.ScoresWriter(where, 3)
  for row in SCORES:
    first.write(row[None])
  part = where / 'part-000000000001.npy'
  content = bytearray(part.read_bytes())
  content[140] ^= 1  # of a number
  part.write_bytes(content)
  again = reference_scores.ScoresWriter(where, 3)
  assert again.done == 1
  assert f'{part} is not what was written' in caplog.text
  again.write(SCORES[1:])
  again.finish(ABOUT)
  (task,) = batching.prepared_tasks(cfg).values()
  np.testing.assert_array_equal(
    pair_features.from_integers(task[1]['reference'][None])[0, 0], SCORES[1]
  )


@pytest.mark.parametrize(('old', 'new'), [('"abc"', '"abb"'), ('true', 'null'), ('runs', 'rund')])
def test_another_letter_in_what_is_said_of_scores_is_named(cfg, old, new):
  path = write(cfg) / 'manifest.json'
  path.write_text(path.read_text().replace(old, new))
  with pytest.raises(ValueError, match=r'manifest\.json is damaged .*Delete .* `aya-train score`'):
    batching.prepared_tasks(cfg)


def test_scores_of_a_version_without_a_digest_are_read(cfg):
  path = write(cfg) / 'manifest.json'
  content = json.loads(path.read_text())
  path.write_text(json.dumps({**content, 'format': 1, 'sha256': content.pop('scores_sha256')}))
  (task,) = batching.prepared_tasks(cfg).values()
  assert task.reference_identity == 'abc'


def test_whoever_only_prepares_needs_no_scores(cfg):
  assert 'reference' not in task_of(cfg)[0]
  with pytest.raises(FileNotFoundError, match='it has those of none'):
    batching.prepared_tasks(cfg)


def test_an_adapter_that_is_off_needs_answers_of_other_prompts_alone(cfg):
  lengths = {**LENGTHS, 'unrelated': 4}
  (task,) = batching.prepared_tasks(
    batching.dataclasses.replace(cfg, task_feature_lengths=lengths)
  ).values()
  assert task[0]['unrelated'].tolist() == [11, 12, 1] and 'reference' not in task[0]
