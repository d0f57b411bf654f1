"""Data sets of one's own, and the released sources, through train, eval and infer."""

import json

import pytest

from aya_train import metric_writer
from tests.docs.reader import EXECUTED

MODEL = '--gin_file=models/mt5_tiny.gin'
MACHINE = '--gin_file=hardware/cpu_local.gin'
LENGTHS = """--gin.TASK_FEATURE_LENGTHS='{"inputs": 128, "targets": 64}'"""
TABLE = """
[[dataset]]
name = 'greetings'
files = {train = 'greetings.csv', validation = 'greetings.csv'}
language_column = 'lang'
license = 'CC0-1.0'
"""
ROWS = """inputs,targets,lang
Say hello.,Habari.,swa
Say hello.,Bonjour.,fra
Say good night.,Bonne nuit.,fra
"""


def shown(*words):
  """The command of the documentation with these words."""
  return next(s for s in EXECUTED if s.kind == 'command' and all(w in s.text for w in words))


def kinds(folder):
  """What a run measured."""
  return {record['kind'] for record in metric_writer.read(folder)}


def run(reader, text):
  ended = reader.place.run(text)
  assert ended.code == 0, ended.output[-3000:]
  return ended.output


@pytest.fixture
def trained(reader):
  """A run of the smoke recipe on the CLDR set; every source of aya_open is built."""
  command = shown('train', 'runs/smoke"')
  reader.do(shown('aya-train prepare aya_dataset aya_collection'))
  assert reader.do(command).code == 0
  return reader


def test_a_table_without_validation_trains(reader):
  ended = reader.do(shown('train', 'runs/copa"'))
  assert ended.code == 0, ended.output
  assert kinds(reader.place.work / 'runs/copa') == {'train'}
  assert (reader.place.work / 'runs/copa/checkpoints/4').exists()
  assert 'validation' in ended.output  # it is said that nothing is measured


def test_answers_to_a_table_have_its_targets(reader):
  assert reader.do(shown('infer', 'runs/copa_answers.jsonl')).code == 0
  lines = (reader.place.work / 'runs/copa_answers.jsonl').read_text().splitlines()
  targets = [json.loads(line)['targets'] for line in lines]
  assert targets == [['Nililowa.'], ['Umeme ulikatika.'], ['Alilia.']]


def test_a_module_with_a_metric_is_decoded(reader):
  ended = reader.do(shown('train', 'runs/pairs"'))
  assert ended.code == 0, ended.output
  folder = reader.place.work / 'runs/pairs'
  assert kinds(folder) == {'train', 'train_eval', 'infer_eval/my_pairs'}
  decoded = [r for r in metric_writer.read(folder) if r['kind'] == 'infer_eval/my_pairs']
  assert 'exact_match' in decoded[-1]
  assert reader.do(shown('eval', 'runs/pairs_eval"')).code == 0
  assert kinds(reader.place.work / 'runs/pairs_eval') == {'train_eval', 'infer_eval/my_pairs'}


def test_a_table_with_validation_is_measured(trained):
  place = trained.place
  (place.work / 'greetings.toml').write_text(TABLE)
  (place.work / 'greetings.csv').write_text(ROWS)
  table = """--gin.DATASET_TABLES='("greetings.toml",)' --gin.MIXTURE_OR_TASK_NAME='"greetings"'"""
  run(
    trained,
    f"""aya-train train {MODEL} --gin_file=recipes/sft_smoke.gin {MACHINE} {table} \\
      --gin.MODEL_DIR='"runs/greetings"' --gin.INITIAL_CHECKPOINT_PATH='"runs/smoke"' \\
      --gin.TRAIN_STEPS_RELATIVE=2 --gin.INFER_EVAL_MIXTURE_OR_TASK_NAME='"greetings"'""",
  )
  assert kinds(place.work / 'runs/greetings') == {'train', 'train_eval'}
  run(
    trained,
    f"""aya-train eval {MODEL} --gin_file=recipes/eval.gin {MACHINE} {table} {LENGTHS} \\
      --gin.CHECKPOINT_PATH='"runs/greetings"' --gin.EVAL_OUTPUT_DIR='"runs/greetings_eval"' \\
      --gin.SPLIT='"validation"'""",
  )
  assert kinds(place.work / 'runs/greetings_eval') == {'train_eval'}


@pytest.mark.parametrize(
  ('name', 'split'),
  [
    ('aya_dataset', 'test'),
    ('aya_dataset.yor', 'train'),
    ('aya_collection_templated.mintaka', 'validation'),
    ('aya_open', 'validation'),
    ('aya_evaluation_suite.aya_human_annotated', 'test'),
    ('aya_evaluation_suite.dolly_machine_translated.yor', 'test'),
  ],
)
def test_the_sources_are_measured_and_answered(trained, name, split):
  trained.do(shown('prepare aya_evaluation_suite'))
  what = f"""--gin.CHECKPOINT_PATH='"runs/smoke"' --gin.MIXTURE_OR_TASK_NAME='"{name}"' \\
    --gin.SPLIT='"{split}"' {LENGTHS}"""
  place = trained.place
  run(
    trained,
    f"""aya-train eval {MODEL} --gin_file=recipes/eval.gin {MACHINE} {what} \\
      --gin.EVAL_OUTPUT_DIR='"runs/{name}_eval"'""",
  )
  assert kinds(place.work / f'runs/{name}_eval') == {'train_eval'}
  run(
    trained,
    f"""aya-train infer {MODEL} --gin_file=recipes/infer.gin {MACHINE} {what} \\
      --gin.OUTPUT_FILE='"runs/{name}.jsonl"' --gin.NUM_EXAMPLES=2""",
  )
  answers = [json.loads(x) for x in (place.work / f'runs/{name}.jsonl').read_text().splitlines()]
  assert answers and all(a['inputs'] and a['targets'] and 'prediction' in a for a in answers)
