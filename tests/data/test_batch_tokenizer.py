"""Tokens in batches are the tokens that SeqIO gives, whatever a task does around them."""

import functools
import itertools
import pathlib
import random

import numpy as np
import pytest
import seqio
import tensorflow as tf

from aya_train.data import batch_tokenizer, piece_encoder, task_examples, task_registry
from aya_train.tasks import features, source_tasks
from aya_train.tasks.mixtures import aya_mixtures
from aya_train.tasks.preference import preference_features

SHARED = pathlib.Path(__file__).parents[3] / 'shared/data'
ODD = [
  *(b'', b' ', b'a\x00b', b'\xff\xfe x', b'a\n\nb\t c', b'</s> <pad> <extra_id_0> ', b'a' * 3000),
  *(text.encode() for text in ('\u200b\ufeff\u3000 x', 'ﬁ Ａ １', '😀👩‍👩‍👧', 'شكرا يا')),
]
REPEATED = [
  '""""""',
  '.......',
  'nananananana',
  'barafubarafubarafu',
  '1111111',
  'хахахахаха',
  'кукуку',
]


@pytest.fixture
def vocabulary(vocabulary_file):
  features.set_vocabulary(vocabulary_file)
  yield
  features.set_vocabulary(None)


def texts(count):
  rng = random.Random(0)
  words = ['Lagos', 'is', 'in', 'Nigeria', 'अगर', '中文', 'ሰላም', *REPEATED]
  return [' '.join(rng.choices(words, k=rng.randrange(1, 9))).encode() for _ in range(count)] + ODD


def task(preprocessors, output_features, count=250):
  columns = {name: texts(count) for name in output_features}
  for number, column in enumerate(columns.values()):
    random.Random(number).shuffle(column)
  size = len(texts(count))
  columns |= {name: [b'x%d' % (i % 3) for i in range(size)] for name in source_tasks.FIELDS[2:]}
  source = seqio.FunctionDataSource(
    lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(columns),
    splits=['train'],
  )
  return seqio.Task('batch_tokenizer_test', source, output_features, preprocessors)


KEEP = source_tasks.keep_fields
END = features.TOKENIZE_AND_APPEND_EOS
PAIRS = preference_features.FEATURES
LONG = functools.partial(aya_mixtures.long_answers, min_tokens=12)


@seqio.map_over_dataset(num_seeds=1)
def with_noise(example, seed):
  noise = tf.strings.as_string(tf.random.stateless_uniform([], seed, 0, 1000, tf.int32))
  return {**example, 'inputs': example['inputs'] + ' ' + noise}


def without_empty(dataset):
  return dataset.filter(lambda row: tf.strings.length(row['targets']) > 0)


KNOWN = {
  'sources': ([KEEP, *END], features.OUTPUT_FEATURES),
  'long answers': ([KEEP, END[0], LONG, *END[1:]], features.OUTPUT_FEATURES),
  'pairs': ([*END, preference_features.without_missing], PAIRS),
  'random': ([KEEP, with_noise, without_empty, *END], features.OUTPUT_FEATURES),
  'cached before': ([with_noise, END[1], with_noise, END[0]], features.OUTPUT_FEATURES),
  'seqio': ([seqio.preprocessors.tokenize_and_append_eos], features.OUTPUT_FEATURES),
}
UNKNOWN = {
  'a step of its own': ([KEEP, *END, lambda ds: ds.take(5)], features.OUTPUT_FEATURES),
  'bytes': (
    [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
    {
      'inputs': seqio.Feature(seqio.ByteVocabulary()),
      'targets': features.OUTPUT_FEATURES['targets'],
    },
  ),
}


def both_ways(made, monkeypatch):
  fast = list(task_examples.examples(made, 'train'))
  monkeypatch.setattr(batch_tokenizer, 'of_task', lambda *_: None)
  return fast, list(task_examples.examples(made, 'train'))


def assert_same(fast, slow):
  for (tokens, kind), (expected, its_kind) in itertools.zip_longest(fast, slow):
    assert kind == its_kind
    assert [t.dtype for t in tokens] == [np.int32] * len(expected)
    assert [t.tolist() for t in tokens] == [t.tolist() for t in expected]


@pytest.mark.parametrize('name', KNOWN)
def test_examples_are_those_of_the_task(name, vocabulary, monkeypatch):
  made = task(*KNOWN[name])
  assert batch_tokenizer.of_task(made, task_registry.record_features(made)) is not None
  fast, slow = both_ways(made, monkeypatch)
  assert len(fast) > 100
  assert_same(fast, slow)


@pytest.mark.parametrize('name', UNKNOWN)
def test_other_tasks_are_left_to_seqio(name, vocabulary):
  made = task(*UNKNOWN[name])
  assert batch_tokenizer.of_task(made, task_registry.record_features(made)) is None
  assert list(task_examples.examples(made, 'train'))


def test_an_error_of_a_row_comes_out_in_one_line(vocabulary):
  def fails(dataset):
    return dataset.map(
      lambda row: {
        **row,
        'inputs': row['inputs'] + tf.strings.as_string(tf.strings.to_number(row['inputs'])),
      }
    )

  with pytest.raises(
    ValueError, match=r"task 'batch_tokenizer_test', split 'train': StringToNumberOp could not"
  ):
    list(task_examples.examples(task([KEEP, fails, *END], features.OUTPUT_FEATURES), 'train'))


def test_texts_of_many_languages_with_a_large_vocabulary():
  """150,000 pieces and bytes; with words that repeat themselves, where pieces tie."""
  file = SHARED / 'afriteva_vocab/sentencepiece.bpe.model'
  if not file.exists():
    pytest.skip(f'{file} is not there')
  lines = [
    line.split(b'\t')[-1]
    for path in sorted((SHARED / 'sib200').glob('*/*.tsv'))
    for line in path.read_bytes().splitlines()[1:9]
  ]
  encoder = piece_encoder.PieceEncoder(seqio.SentencePieceVocabulary(str(file)))
  sample = [*lines, *texts(300), *(w.encode() * n for w in REPEATED for n in range(1, 4))]
  expected = encoder._operation.tokenize(sample).to_list()
  assert [ids.tolist() for ids in encoder.encode(sample, add_eos=False)] == expected
  assert [ids.tolist() for ids in encoder.encode(sample[:9], add_eos=True)] == [
    [*ids, 1] for ids in expected[:9]
  ]
