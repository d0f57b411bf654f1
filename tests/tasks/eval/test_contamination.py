import pytest
import seqio
import tensorflow as tf

from aya_train.tasks.eval import contamination
from tests import seqio_tasks

SENTENCE = 'Habari za asubuhi rafiki yangu mpendwa wa siku nyingi sana kutoka mjini'
THAI = 'สวัสดีตอนเช้าเพื่อนรักของฉันจากเมืองไกล'


def found(evaluation, training, n=8, threshold=0.5):
  index = contamination.EvaluationIndex(n)
  for i, text in enumerate(evaluation):
    index.add(str(i), [text])
  return contamination.compare(index, [('t', text) for text in training], threshold)


@pytest.mark.parametrize(
  'disguised',
  [
    SENTENCE.upper(),
    SENTENCE.replace(' ', ',  '),
    f'Question: {SENTENCE}? Answer: yes, it is so.',
    ''.join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in SENTENCE),  # full width
    SENTENCE.replace('a', 'a\u200d'),
  ],
)
def test_a_copy_is_found_in_any_dress(disguised):
  (match,) = found([SENTENCE], ['something else entirely, of some length', disguised]).matches
  assert match.overlap == 1
  assert match.training_rows == 1


def test_scripts_without_spaces_are_compared_by_character():
  assert len(contamination.words(THAI)) > 20
  (match,) = found([THAI], ['ก่อน' + THAI + 'หลัง']).matches
  assert match.overlap == 1
  assert not found([THAI], [THAI[::-1]]).matches


def test_composed_and_decomposed_text_are_the_same():
  assert contamination.words('Ẹ kú àárọ̀') == contamination.words(
    'E\u0323 ku\u0301 a\u0300a\u0301ro\u0323\u0300'
  )


def test_overlap_is_the_share_of_ngrams():
  half = ' '.join(SENTENCE.split()[:10])
  (match,) = found([SENTENCE], [half, half], threshold=0.2).matches
  assert match.overlap == pytest.approx(3 / 5)
  assert match.covered == pytest.approx(3 / 5)
  assert match.training_rows == 2
  assert not found([SENTENCE], [half], threshold=0.7).matches


def test_short_examples_are_looked_for_whole_and_very_short_ones_not_at_all():
  report = found(
    ['one two three four five six', 'yes it is'], ['so one two three four five six so']
  )
  assert [m.evaluation for m in report.matches] == ['0']
  assert report.unchecked == 1
  assert not found(['one two three four five six'], ['one two three x four five six']).matches


def test_other_texts_are_not_found():
  report = found([SENTENCE], [SENTENCE[::-1], 'x ' * 50, ''])
  assert not report.matches
  assert report.contaminated_rows == {}
  assert report.training_rows == 3


def test_a_mixture_is_checked_against_a_task():
  clean = [
    (f'row number {i} of a long enough question about nothing at all', 'x') for i in range(5)
  ]
  seqio_tasks.add_task('con.train', {'train': [*clean, (f'Swali: {SENTENCE}', 'jibu')]})
  seqio_tasks.add_task(
    'con.eval', {'test': [('another question of its own, quite long', 'y'), (SENTENCE, 'z')]}
  )
  seqio.MixtureRegistry.remove('con')
  seqio.MixtureRegistry.add('con', [('con.train', 1.0)])
  report = contamination.check('con', [('con.eval', 'test')])
  assert [m.evaluation for m in report.matches] == ['con.eval:test row 2']
  assert report.contaminated_rows == {'con.train': 1}
  with pytest.raises(ValueError, match="no split 'test'"):
    contamination.check('con.eval', [('con.train', 'test')])


@pytest.mark.parametrize('column', ['inputs', 'chosen', 'rejected'])
def test_pairs_of_answers_are_looked_through(column):
  """In the prompt and in both answers."""
  texts = dict.fromkeys(('inputs', 'chosen', 'rejected'), 'words of no importance here')
  rows = [texts, texts | {column: SENTENCE}]

  def pairs(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    return tf.data.Dataset.from_tensor_slices({n: [row[n] for row in rows] for n in texts})

  seqio_tasks.add_task('con.eval', {'test': [(SENTENCE, 'z')]})
  feature = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
  seqio.TaskRegistry.remove('con.pairs')
  seqio.TaskRegistry.add(
    'con.pairs',
    source=seqio.FunctionDataSource(pairs, splits=('train',)),
    preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
    output_features=dict.fromkeys(texts, feature),
  )
  report = contamination.check('con.pairs', [('con.eval', 'test')])
  assert [m.evaluation for m in report.matches] == ['con.eval:test row 1']
  assert report.contaminated_rows == {'con.pairs': 1}
  seqio.TaskRegistry.remove('con.pairs')
