"""The command as it is given: a file in, a data set out that tasks and the report read."""

import json
import re

import pytest

from aya_train.cli import main
from aya_train.translation import translation_output

pytest.importorskip('sentencex', reason='needs the extra `translate`')


def rows(path, texts):
  path.write_text(''.join(json.dumps({'inputs': t, 'targets': 'Ada'}) + '\n' for t in texts))
  return str(path)


def translate(tmp_path, *more, texts=('Who?', 'Who wrote {x}?')):
  source = rows(tmp_path / 'quiz.jsonl', texts)
  output = ['--output', str(tmp_path / 'out'), '--engine', 'identity', '--license', 'MIT']
  return main.main(['translate', source, *output, *more])


def test_what_comes_out_is_told_and_can_be_translated_again(tmp_path, capsys):
  assert translate(tmp_path, '--to', 'yor,tha') == 0
  said = capsys.readouterr().out
  assert 'yor: 2 of 2 rows accepted' in said and 'tokens to translate' in said
  table = str(tmp_path / 'out' / translation_output.TABLE)
  again = ['--engine', 'identity', '--output', str(tmp_path / 'again')]
  options = ['--from', 'yor', '--datasets', 'quiz_translated.yor', '--name', 'back']
  assert main.main(['translate', table, '--to', 'eng', *options, *again]) == 0
  manifest = json.loads((tmp_path / 'again' / translation_output.MANIFEST).read_text())
  assert manifest['name'] == 'back' and manifest['source']['license'] == 'MIT'
  assert manifest['splits']['train_eng']['rows'] == 2


@pytest.mark.parametrize(
  ('more', 'said'),
  [
    (['--to', 'eng'], 'the source is in that language'),
    (['--to', ','], 'at least one language'),
    (['--to', 'yor,yo'], 'name it once'),
    (['--to', 'yor', '--rows_of_unit', '0'], '--rows_of_unit'),
    (['--to', 'yor', '--longest', '0'], '--longest must be at least 1, got 0'),
    (['--to', 'yor', '--price_per_hour', 'nan'], '--price_per_hour must be a number from 0 on'),
    (['--to', 'yor', '--split', 'train[x:]'], 'is no boundary'),
    (['--to', 'yor', '--device_index', 'a'], '--device_index'),
    (
      ['--to', 'yor', '--scorer', 'json:nothing', '--scorer_license', 'MIT'],
      "no attribute 'nothing'",
    ),
    (['--to', 'yor', '--scorer', 'json', '--scorer_license', 'MIT'], 'MODULE:FUNCTION'),
    (['--to', 'yor', '--model_license', 'CC BY-NC 4.0', '--policy', 'commercial'], 'the model'),
    (['--to', 'yor', '--model_license', 'Mine'], 'the model identity: .*Mine'),
  ],
)
def test_what_cannot_be_is_told_before_anything_is_written(more, said, tmp_path, capsys):
  assert translate(tmp_path, *more) == 1
  error = capsys.readouterr().err
  assert re.search(said, error), error
  assert not list((tmp_path / 'out').rglob('*.jsonl'))
