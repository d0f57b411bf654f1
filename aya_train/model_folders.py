"""Folders that are a model already, known by their files: nothing else is written into them."""

import os

from etils import epath

from aya_train import path_facts

STEP = 'a step of a run'
# Each kind by files that are all there; of names with a star one is enough.
_KINDS = (
  (STEP, ('params/_METADATA', 'metadata/metadata')),
  ('an adapter of PEFT', ('adapter_config.json',)),
  ('a model of sentence-transformers', ('modules.json', 'config_sentence_transformers.json')),
  ('a Hugging Face model', ('config.json', '*.safetensors')),
  ('a Hugging Face model', ('config.json', '*.bin')),
  ('a model of CTranslate2', ('model.bin',)),
  ('a model of llama.cpp', ('*.gguf',)),
  ('a T5X checkpoint', ('checkpoint',)),
  ('a T5X checkpoint', ('state/_METADATA',)),
  ('a T5X checkpoint', ('state/manifest.ocdbt',)),
  ('a part of a checkpoint', ('_METADATA',)),
)


def kind_of(folder: epath.PathLike) -> str:
  """What model a folder is, such as 'a Hugging Face model'; '' if it is none."""
  folder = epath.Path(folder)
  if not folder.is_dir():
    return ''
  for kind, names in _KINDS:
    if all(_is_there(folder, name) for name in names):
      return kind
  return ''


def check(folder: epath.PathLike, name: str) -> None:
  """Refuses to write something else into a folder that is a model.

  Args:
    folder: what will be written to.
    name: what the user calls it: '--output'.

  Raises:
    FileExistsError: it is one.
  """
  if kind := kind_of(folder):
    raise FileExistsError(
      f'{name} {folder} is {kind}, with whose files others would be mixed up: give another folder'
    )


def check_run(model_dir: epath.PathLike) -> None:
  """Refuses a MODEL_DIR that holds a model, and is no folder of a run.

  Raises:
    FileExistsError: what it is, and what starts from it.
    ValueError: Orbax could not read back what it writes there.
  """
  path = epath.Path(model_dir)
  whole = os.fspath(path) if '://' in os.fspath(path) else os.path.abspath(path)
  if wild := ' '.join(sorted({*whole} & {*'*?['})):
    raise ValueError(
      f'MODEL_DIR {whole} has {wild} in its path, which Orbax, the writer of checkpoints, takes '
      'for a pattern: they could not be read back. Give a folder without such characters'
    )
  kind = kind_of(path)
  if not kind and kind_of(path.parent) == STEP:
    kind = 'a part of a checkpoint'
  elif not kind and _has_steps(path):
    kind = 'a folder of the steps of a run'
  elif not kind and path.parent.name == 'checkpoints' and _has_steps(path.parent):
    kind = 'in a folder of the steps of a run'
  elif not kind and not (path / 'run.json').exists() and _is_there(path, 'checkpoint_*'):
    kind = 'a folder of T5X checkpoints'
  if kind:
    raise FileExistsError(
      f'MODEL_DIR {model_dir} is {kind}: training writes a run, and does not go on from it. Give '
      'another folder as MODEL_DIR; INITIAL_CHECKPOINT_PATH names a checkpoint to start from, and '
      'the MODEL_DIR that a run was begun with continues it'
    )


def _has_steps(folder: epath.Path) -> bool:
  if not folder.is_dir():
    return False
  return any(path.name.isdigit() and kind_of(path) == STEP for path in folder.iterdir())


def _is_there(folder: epath.Path, name: str) -> bool:
  if '*' not in name:
    return (folder / name).is_file()
  return folder.is_dir() and bool(path_facts.matching(folder, name))
