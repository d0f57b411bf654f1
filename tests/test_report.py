import jinja2
import markupsafe
import pytest

from aya_train import report


def test_a_directory_without_metrics_is_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no metrics.jsonl in .*MODEL_DIR'):
    report.run_report(tmp_path)


def test_answers_are_compared_as_the_metric_does():
  sample = report.Sample('p', reference='2023\u202fж.', ours='2023 ж.', theirs=None, same=None)
  assert sample.right
  assert not report.Sample('p', 'a', 'b', None, None).right


def test_the_template_escapes_prompts():
  loader = jinja2.PackageLoader('aya_train', 'templates')
  environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
  sample = report.Sample('<script>x</script>', 'r', 'o', 't', False)
  macros = {'MIXTURE_OR_TASK_NAME': 'm', 'BATCH_SIZE': 2, 'PACK': True}
  macros['TASK_FEATURE_LENGTHS'] = {'inputs': 1, 'targets': 1}
  macros['INITIAL_CHECKPOINT_PATH'] = None
  run = {'macros': macros, 'gin_text': ''}
  page = environment.get_template('run.html.jinja').render(
    run=run,
    step=1,
    parameters=1,
    figures=[],
    charts=[],
    groups=[],
    kinds=[],
    samples=[sample],
    compared=True,
    data_rows=[],
    data_note='',
    versions={},
    devices='1 x cpu',
  )
  assert str(markupsafe.escape(sample.prompt)) in page
  assert '<script>' not in page
  assert 'OTHER TOKENS' in page
