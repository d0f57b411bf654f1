"""Numbers that have no sense are refused by name, before anything else happens."""

import json

import pytest

from aya_train.cli import main

JUDGE = 'judge a.jsonl --output out --scorer math:sqrt'
TEACH = 'teach a.jsonl --output out --license MIT --model m --language eng'
MINE = 'mine run --pairs a.jsonl --corpus a.jsonl --output out.jsonl'
EMBED = 'embed run a.jsonl --output out'
CONTAMINATION = 'contamination cldr --against cldr'
CONVERT = 'convert run out --to hf'
PREPARE = 'prepare cldr'
ANNOTATE = 'annotate pairs a.jsonl b.jsonl --output out'


@pytest.mark.parametrize(
  ('command', 'more', 'said'),
  [
    (JUDGE, '--threshold nan', '--threshold must be from 0 to 1, got nan'),
    (JUDGE, '--batch_size 0', '--batch_size must be at least 1, got 0'),
    (JUDGE, '--timeout inf', '--timeout must be a number from 0 on, got inf'),
    (TEACH, '--temperature nan', '--temperature must be a number from 0 on, got nan'),
    (TEACH, '--max_tokens 0', '--max_tokens must be at least 1, got 0'),
    (TEACH, '--min_characters 9 --max_characters 5', 'holds no answer'),
    (MINE, '--margin nan', '--margin must be a finite number, got nan'),
    (MINE, '--tile 0', '--tile must be at least 1, got 0'),
    (EMBED, '--max_length 0', '--max_length must be at least 2, got 0'),
    (CONTAMINATION, '--threshold 1.5', '--threshold must be from 0 to 1, got 1.5'),
    (CONTAMINATION, '--ngram 0', '--ngram must be at least 1, got 0'),
    (CONVERT, '--max_new_tokens 0', '--max_new_tokens must be at least 1, got 0'),
    (CONVERT, '--num_examples -1', '--num_examples must be at least 0, got -1'),
    (PREPARE, '--workers 0', '--workers must be at least 1, got 0'),
    (PREPARE, '--max_bad_rows nan', '--max_bad_rows must be from 0 to 1, got nan'),
    (EMBED, '--num_processes 0', '--num_processes must be at least 1, got 0'),
    (ANNOTATE, '--each 0', '--each must be at least 1, got 0'),
  ],
)
def test_a_number_without_sense(command, more, said, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  row = json.dumps({'text': 'a', 'inputs': 'a', 'prediction': 'b', 'query': 'c', 'positive': 'd'})
  (tmp_path / 'a.jsonl').write_text(row + '\n')
  assert main.main([*command.split(), *more.split()]) == 1
  assert said in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ['a.jsonl']


def test_a_request_is_json(capsys):
  with pytest.raises(SystemExit):
    main.main([*TEACH.split(), '--request', '{"top_p": NaN}'])
  assert 'no JSON' in capsys.readouterr().err
