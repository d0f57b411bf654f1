import pytest

from aya_train.tasks.eval import eval_source


def test_a_source_gives_its_rows_as_tensors_and_slices_of_them():
  rows = [{'text': str(i), 'parts': ['x'] * i, 'n': i, 'unused': None} for i in range(5)]
  fields = {
    'text': eval_source.STRING,
    'parts': eval_source.STRINGS,
    'n': eval_source.INTEGER,
  }
  source = eval_source.EvalSource(lambda split: rows, fields)
  assert source.num_input_examples('test') == 5
  got = list(source.get_dataset('test', shuffle=False).as_numpy_iterator())
  assert [(row['text'], len(row['parts']), row['n']) for row in got] == [
    (str(i).encode(), i, i) for i in range(5)
  ]
  assert source.num_input_examples('test[:40%]') == 2
  with pytest.raises(ValueError, match="no split 'train'"):
    source.get_dataset('train')
