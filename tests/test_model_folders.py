import pytest

from aya_train import destinations, model_folders

MODELS = {
  'a step of a run': ('params/_METADATA', 'metadata/metadata'),
  'an adapter of PEFT': ('adapter_config.json', 'adapter_model.safetensors'),
  'a model of sentence-transformers': ('modules.json', 'config_sentence_transformers.json'),
  'a Hugging Face model': ('config.json', 'model-00001-of-00002.safetensors'),
  'a model of CTranslate2': ('model.bin', 'embedding.json'),
  'a model of llama.cpp': ('q8_0.gguf',),
  'a T5X checkpoint': ('checkpoint',),
  'a part of a checkpoint': ('_METADATA',),
}


def made(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text('')
  return folder


def files(folder):
  return sorted(str(path) for path in folder.rglob('*'))


@pytest.mark.parametrize('kind', MODELS)
def test_nothing_is_written_into_a_model(tmp_path, kind):
  before = files(made(tmp_path / 'model', *MODELS[kind]))
  with pytest.raises(FileExistsError, match=f'--output .*model is {kind}, .*another folder'):
    destinations.check_folder(tmp_path / 'model', '--output')
  destinations.check_file(tmp_path / 'model' / 'answers.jsonl', 'OUTPUT_FILE')  # beside it
  with pytest.raises(FileExistsError, match=f'MODEL_DIR .* is {kind}.*INITIAL_CHECKPOINT_PATH'):
    model_folders.check_run(tmp_path / 'model')
  assert files(tmp_path / 'model') == before


@pytest.mark.parametrize(
  ('place', 'kind'),
  [
    ('run/checkpoints', 'a folder of the steps'),
    ('run/checkpoints/20', 'in a folder of the steps'),
    ('run/checkpoints/10', 'a step of a run'),
    ('run/checkpoints/10/training', 'a part of a checkpoint'),
    ('t5x', 'a folder of T5X checkpoints'),
  ],
)
def test_a_folder_of_steps_is_no_run(tmp_path, place, kind):
  made(tmp_path / 'run', 'run.json')
  made(tmp_path / 'run/checkpoints/10', 'params/_METADATA', 'metadata/metadata')
  made(tmp_path / 't5x/checkpoint_100', 'checkpoint')
  with pytest.raises(FileExistsError, match=f'is {kind}'):
    model_folders.check_run(tmp_path / place)


@pytest.mark.parametrize('name', ['params', 'checkpoint'])
def test_a_folder_of_the_users_with_such_a_name_is_no_model(tmp_path, name):
  (tmp_path / name).mkdir()
  model_folders.check_run(tmp_path / 'run')
  model_folders.check_run(tmp_path)
  destinations.check_folder(tmp_path, '--output')


def test_runs_and_folders_of_something_else_are_written(tmp_path):
  run = made(tmp_path / 'run', 'run.json', 'config.json', 'checkpoint_10/checkpoint')
  made(run / 'checkpoints/10', 'params/_METADATA', 'metadata/metadata')
  for folder in (run, tmp_path, tmp_path / 'new'):
    model_folders.check_run(folder)
    destinations.check_folder(folder, 'MODEL_DIR')
  destinations.check_folder(run / 'checkpoints', 'MODEL_DIR')
