"""What the data page says of translated sources equals what the translation counted."""

import json

import pytest
import seqio

from aya_train.report import translated_sources
from aya_train.tasks.user import user_data
from aya_train.translation import translation_jobs, translation_output, translation_run

pytest.importorskip('sentencex', reason='needs the extra `translate`')
SETTINGS = {'thresholds': {'default': {'copied_from': 20, 'language': False}}}


@pytest.fixture
def tasks(tmp_path):
  rows = [
    {'inputs': 'Who is it?\n- {x}', 'targets': 'Ada'},
    {'inputs': 'This one comes back as it was, all of it.', 'targets': 'Ada'},
  ]
  source = translation_run.Source('quiz', 'eng', 'MIT')
  translation_run.translate(
    rows, source, ['arz_Arab', 'yor'], tmp_path, translation_jobs.EngineSpec(), settings=SETTINGS
  )
  names = user_data.add_tables([tmp_path / translation_output.TABLE])
  yield names[:-1]
  seqio.MixtureRegistry.remove(names.pop())
  for name in names:
    seqio.TaskRegistry.remove(name)


def test_rows_reasons_and_examples_in_their_direction(tasks, tmp_path):
  (found,) = translated_sources.find([*tasks, 'cldr.yor'])
  assert (found.name, found.reasons) == ('quiz_translated', ['copied'])
  for language in found.languages:
    assert (language.rows, language.accepted, dict(language.rejected)) == (2, 1, {'copied': 1})
    assert language.percent == 50 and language.ratio['p50'] == 1
  assert [(e.language, e.column, e.reason) for e in found.examples] == [
    (name, column, reason)
    for name in ('Arabic (ara)', 'Yoruba (yor)')
    for reason in ('', 'copied')
    for column in ('inputs', 'targets')
  ]
  assert [line.text for line in found.examples[0].source] == ['Who is it?', '- {x}']
  assert 'MIT' in found.said and 'no model' in found.said


def test_arabic_runs_from_the_right(tasks, tmp_path):
  path = tmp_path / translation_output.REPORT
  report = json.loads(path.read_text())
  report['languages']['arz_Arab']['examples'][0]['translation']['inputs'] = 'كم؟ 12 (x)'
  path.write_text(json.dumps(report))
  (found,) = translated_sources.find(tasks)
  assert [line.direction for line in found.examples[0].translation] == ['rtl']
  assert [line.direction for line in found.examples[0].source] == ['ltr', 'ltr']


def test_a_damaged_report_is_left_out_with_a_warning(tasks, tmp_path, caplog):
  (tmp_path / translation_output.REPORT).write_text('{"translated_by": {}')
  assert translated_sources.find(tasks) == []
  assert 'is damaged' in caplog.text
