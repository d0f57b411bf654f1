"""Model cards say what the run recorded, and that the rest was not recorded."""

import json
import pathlib
import shutil

import pytest

from aya_train import signed_json
from aya_train.checkpoint.hf import hf_export
from aya_train.export import evaluation_entries, model_card, quality
from aya_train.tasks import catalog
from tests.checkpoint import small_model

huggingface_hub = pytest.importorskip('huggingface_hub', reason='needs the extra `hf`')
pytest.importorskip('safetensors', reason='needs the extra `hf`')

GIN = """
from aya_train import train_loop

BATCH_SIZE = 16
BASE_LEARNING_RATE = 0.0003
INITIAL_CHECKPOINT_PATH = '/disk/of/ann/mt5_base'
LEARNING_RATE_FACTORS = 'constant'
LOSS_NORMALIZING_FACTOR = 'AVERAGE_PER_SEQUENCE'
MIXTURE_OR_TASK_NAME = 'aya_mixture'
OPTIMIZER = @optimizer.adafactor
PACK = True
TASK_FEATURE_LENGTHS = {'inputs': 1024, 'targets': 512}
TRAIN_STEPS = 30000
WARMUP_STEPS = 100

train_loop.train.total_steps = %TRAIN_STEPS
"""
RECORDS = (
  {'step': 0, 'kind': 'train_eval', 'loss_per_target_token': 4.0, 'accuracy': 0.1},
  {'step': 9, 'kind': 'train_eval', 'loss_per_target_token': 1.25, 'accuracy': 0.5},
  {'step': 9, 'kind': 'infer_eval/cldr', 'exact_match': 12.5, 'exact_match/yor': 20.0},
)
MANIFEST = {
  'sources': [
    {
      'name': 'aya_dataset',
      'version': '1.0.0',
      'licenses': {'Apache-2.0': 16},
      'languages': {'swa': 7, 'deu': 8, 'und': 1},
      'examples': 204112,
      'attribution': 'Singh et al. 2024',
      'use': 'commercial',
    },
    {
      'name': 'ann/rows',
      'license': ['CC-BY-4.0', 'CC0-1.0'],
      'licenses': {'Apache-2.0': 2, 'CC0-1.0': 3},
      'languages': {'swa': 2},
      'attribution': 'Singh et al. 2024',
      'use': 'non-commercial',
      'share_alike': True,
      'model_generated_by': ['NLLB-200'],
      'terms': 'those of their owner',
    },
  ],
  'attributions': ['Unicode CLDR'],
}


@pytest.fixture(scope='module')
def hf_folder(vocabulary_file, tmp_path_factory):
  config = small_model.config()
  return hf_export.export(
    small_model.random_params(config), config, vocabulary_file, tmp_path_factory.mktemp('c') / 'hf'
  )


@pytest.fixture
def model_dir(tmp_path):
  folder = tmp_path / 'run'
  (folder / 'checkpoints' / '9').mkdir(parents=True)
  (folder / 'run.json').write_text(json.dumps({'first_step': 0, 'seed': 0}))
  (folder / 'config.gin').write_text(GIN)
  (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, RECORDS)) + '\n')
  return folder


def card_of(hf_folder, **kwargs):
  arguments = {'name': 'small', 'card': None, 'report': None, 'base_model': None}
  return model_card.render(hf_folder, **{**arguments, 'license': 'apache-2.0', **kwargs})


def metadata(text):
  return huggingface_hub.ModelCard(text).data.to_dict()


def test_the_card_has_the_recipe_of_the_run_and_no_path_of_its_disk(hf_folder, model_dir):
  text = card_of(hf_folder, card=model_card.read(model_dir))
  for line in (
    '| Steps | 30000 |',
    '| Batch | 16 rows |',
    '| Lengths | inputs 1024, targets 512 |',
    '| Optimizer | optimizer.adafactor |',
    '| Learning rate | 0.0003 |',
    '| Loss normalisation | AVERAGE_PER_SEQUENCE |',
    '| Initial checkpoint | mt5_base |',
    '| Loss per target token | 4.000 | 1.250 |',
    '| Exact match | – | 12.5 % |',
    '| Yoruba | 20.0 % |',
  ):
    assert line in text, line
  assert '/disk/of/ann' not in text
  assert 'Warm-up' not in text  # the schedule has none
  assert 'cut at 1024 tokens and answers at 512' in text
  assert 'random weights' not in text
  assert f'{small_model.VOCAB_ROWS}' in text and 'never trained' in text


def test_metadata_are_those_the_hub_reads(hf_folder, model_dir):
  (model_dir / model_card.MANIFEST).write_text(json.dumps(MANIFEST))
  card = model_card.read(model_dir)
  found = metadata(card_of(hf_folder, card=card, base_model='google/mt5-base'))
  assert found['language'] == ['deu', 'swa']
  assert found['license'] == 'apache-2.0'
  assert found['base_model'] == 'google/mt5-base'
  assert found['base_model_relation'] == 'finetune'
  assert found['datasets'] == [catalog.BY_NAME['aya_dataset'].repository, 'ann/rows']
  assert (found['library_name'], found['pipeline_tag']) == ('transformers', 'text2text-generation')
  assert {'mt5', 'multilingual'} <= set(found['tags'])
  (result,) = huggingface_hub.ModelCard(card_of(hf_folder, card=card)).data.eval_results
  assert (result.dataset_name, result.metric_type, result.metric_value) == (
    'cldr',
    'exact_match',
    12.5,
  )


def test_the_manifest_is_told_with_versions_licenses_and_credits(hf_folder, model_dir):
  (model_dir / model_card.MANIFEST).write_text(json.dumps(MANIFEST))
  text = card_of(hf_folder, card=model_card.read(model_dir))
  assert '| aya_dataset | 1.0.0 | Apache-2.0 | commercial | 204,112 | – |' in text
  assert (
    '| ann/rows | – | CC-BY-4.0, CC0-1.0 | non-commercial | – | share-alike; written by NLLB-200; '
    'terms: those of their owner |'
  ) in text
  assert 'Apache-2.0 18, CC0-1.0 3.' in text
  assert text.count('- Singh et al. 2024') == 1 and '- Unicode CLDR' in text
  assert 'German (deu), Swahili (swa).' in text


def test_what_was_not_recorded_is_said_to_be_missing(hf_folder, tmp_path):
  (tmp_path / 'run.json').write_text('{"first_step": 0}')
  bare = card_of(hf_folder, card=model_card.read(tmp_path))
  alone = card_of(hf_folder)
  for text in (bare, alone):
    assert 'kept no data manifest' in text
    assert 'No evaluation was recorded' in text
    assert 'was not recorded with this model' in text
    found = metadata(text)
    assert not {'language', 'datasets', 'base_model', 'model-index'} & set(found)
  assert 'How the model was trained was not recorded' in alone
  assert 'trained from random weights' in bare


@pytest.mark.parametrize(
  'manifest',
  [{}, {'sources': None}, {'sources': ['a name'], 'languages': ['deu']}, {'unknown': 3}],
)
def test_manifests_of_any_shape_are_read(hf_folder, model_dir, manifest):
  (model_dir / model_card.MANIFEST).write_text(json.dumps(manifest))
  card = model_card.read(model_dir)
  assert card.data is not None
  assert 'kept no data manifest' not in card_of(hf_folder, card=card)


@pytest.mark.parametrize('text', ['{', '[]'])
def test_damaged_manifests_are_refused(model_dir, text):
  (model_dir / model_card.MANIFEST).write_text(text)
  with pytest.raises(ValueError, match=r'data_manifest\.json'):
    model_card.read(model_dir)


def test_a_manifest_that_was_changed_is_told(model_dir, caplog):
  text = signed_json.dump({'sources': [{'name': 'rows', 'licenses': {'CC BY-NC 4.0': 5}}]})
  (model_dir / model_card.MANIFEST).write_text(text)
  model_card.read_manifest(model_dir)
  assert not caplog.records
  (model_dir / model_card.MANIFEST).write_text(text.replace('BY-NC', 'BY-SC'))
  model_card.read_manifest(model_dir)
  assert 'data_manifest.json is not as the run wrote it' in caplog.text


def test_sources_may_be_a_mapping(model_dir):
  rows = {'rows': {'version': 2, 'license': 'Apache-2.0', 'examples': 5}}
  (model_dir / model_card.MANIFEST).write_text(json.dumps({'sources': rows}))
  data = model_card.read_manifest(model_dir)
  assert data.sources == [model_card.DataSource('rows', '2', 'Apache-2.0', 5)]


@pytest.mark.parametrize(('kind', 'library'), [('gguf', 'gguf'), ('ct2', 'ctranslate2')])
def test_quantised_cards_give_size_and_loss_of_quality(hf_folder, tmp_path, kind, library):
  report = {
    'format': kind,
    'quantisation': 'q8_0',
    'bytes': 3_000_000,
    'float_bytes': 11_000_000,
    'float_dtype': 'float32',
    'parameters': 2_750_000,
    'bytes_per_parameter': 12 / 11,
    'examples': 512,
    'examples_file': 'rows.jsonl',
    'float_loss': 2.5,
    'loss': 2.625,
    'float_exact_match': 12.0,
    'exact_match': 11.0,
    'same_answers': 97.5,
    'same_tokens': 98.5,
  }
  text = card_of(hf_folder, report=report, base_model='ann/small')
  assert '| Weights | 11.0 MB | 3.0 MB |' in text
  assert '| Loss per target token | 2.5000 | 2.6250 |' in text
  assert '97.5 %' in text and '512 examples of `rows.jsonl`' in text
  # llama-cli never runs the encoder.
  assert ('llama-completion -m ' in text, 'llama-cli -m ' in text) == (kind == 'gguf', False)
  found = metadata(text)
  assert (found['library_name'], found['base_model_relation']) == (library, 'quantized')
  (tmp_path / quality.FILE).write_text(json.dumps({k: report[k] for k in list(report)[:7]}))
  model_card.write(tmp_path, hf_folder)
  assert 'were not compared' in (tmp_path / 'README.md').read_text()


def test_the_license_of_the_package_is_that_of_the_weights(hf_folder, tmp_path):
  model_card.write(tmp_path, hf_folder)
  root = pathlib.Path(__file__).parents[2]
  assert (tmp_path / 'LICENSE').read_text() == (root / 'LICENSE').read_text()
  (tmp_path / 'other').mkdir()
  model_card.write(tmp_path / 'other', hf_folder, license='cc-by-4.0')
  assert not (tmp_path / 'other' / 'LICENSE').exists()
  assert metadata((tmp_path / 'other' / 'README.md').read_text())['license'] == 'cc-by-4.0'


def test_steps_are_those_that_were_made(hf_folder, model_dir):
  (model_dir / 'config.gin').write_text(f'{GIN}\nTRAIN_STEPS_RELATIVE = 12\n')
  (model_dir / 'run.json').write_text(json.dumps({'first_step': 1_000_000, 'seed': 0}))
  line = {'step': 1_000_012, 'kind': 'train', 'loss_per_target_token': 1.0, 'accuracy': 0.5}
  with (model_dir / 'metrics.jsonl').open('a') as file:
    file.write(json.dumps(line) + '\n')
  text = card_of(hf_folder, card=model_card.read(model_dir))
  assert '| Steps | 12 |' in text
  assert '| Steps before this run | 1,000,000 |' in text


@pytest.mark.parametrize('model_type', ['umt5', 'mt5'])
def test_the_card_of_an_umt5_says_how_its_logits_stay_unscaled(hf_folder, tmp_path, model_type):
  """T5X trains umT5 unscaled (logits_via_embedding = False); transformers 5 scales every umT5."""
  folder = tmp_path / 'folder'
  shutil.copytree(hf_folder, folder)
  settings = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps({**settings, 'model_type': model_type}))
  model_card.write(folder, folder)
  code = (folder / 'README.md').read_text().partition('```python')[2].partition('```')[0]
  assert ('model.config.tie_word_embeddings = False' in code) == (model_type == 'umt5')


def test_evaluations_of_the_weights_stand_in_table_and_metadata(hf_folder, tmp_path):
  entry = evaluation_entries.Entry(
    *('xcopa', 'swa', 'validation', 't0', 'multiple-choice', 'accuracy'),
    value=51.25,
    num_prompts=5,
    num_examples=100,
  )
  folder = tmp_path / 'mine'
  shutil.copytree(hf_folder, folder)
  model_card.write(folder, folder, evaluations=[entry])
  card = huggingface_hub.ModelCard.load(folder / 'README.md')
  (result,) = card.data.eval_results
  assert (result.dataset_config, result.metric_value) == ('swa.t0', 51.25)
  assert '| xcopa | validation | 1 | accuracy, t0 | 51.2 |' in card.text
  assert 'No evaluation was recorded' not in card.text
