"""What a run left in its MODEL_DIR. Reads files only: neither gin nor the tasks change by it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import gin_text, metric_writer, path_facts, run_dir

INFER_EVAL = 'infer_eval/'
_CONFIG, _OPERATIVE = 'config.gin', 'operative_config.gin'
Record = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
  """A run as it lies on disk.

  Attributes:
    model_dir: its MODEL_DIR.
    records: lines of metrics.jsonl, by step.
    info: run.json: `architecture`, `vocabulary_file`, `seed`, `first_step` ...
    macros: of config.gin by name, as `gin_text.resolved` gives them.
    imports: modules that config.gin imports.
    gin_text: the operative configuration; all of it if the run did not get as far as writing that.
  """

  model_dir: epath.Path
  records: Sequence[Record]
  info: Mapping[str, Any]
  macros: Mapping[str, Any]
  imports: Sequence[str]
  gin_text: str

  @property
  def first_step(self) -> int:
    return self.info['first_step']

  def macro(self, name: str) -> Any:
    """The value of a macro, None where the run defines none.

    Raises:
      ValueError: it is what a function returns, or another macro that the run does not define.
    """
    value = self.macros.get(name)
    if isinstance(value, gin_text.Reference):
      raise ValueError(
        f'{self.model_dir / _CONFIG}: {name} = {value} cannot be read without evaluating it: write '
        'the value there'
      )
    return value

  def of_kind(self, kind: str) -> list[Record]:
    """Records of one kind by step, such as 'train'."""
    return [record for record in self.records if record['kind'] == kind]

  @property
  def infer_tasks(self) -> list[str]:
    """Tasks that were decoded, sorted."""
    kinds = {record['kind'] for record in self.records}
    return sorted(kind.removeprefix(INFER_EVAL) for kind in kinds if kind.startswith(INFER_EVAL))


def find(path: epath.PathLike) -> epath.Path | None:
  """The MODEL_DIR that a path is, or lies in as one of its checkpoints/<step>; None if neither."""
  path = epath.Path(path)
  for folder in (path, path.parent, path.parent.parent):
    if path_facts.exists(folder / run_dir.FILE):
      return folder
  return None


def read(model_dir: epath.PathLike) -> Run:
  """Opens a MODEL_DIR as far as it goes: what the run did not write is empty.

  Raises:
    FileNotFoundError: run.json is missing.
    ValueError: config.gin is no gin.
  """
  folder = epath.Path(model_dir)
  if not path_facts.exists(folder / run_dir.FILE):
    raise FileNotFoundError(f'no {run_dir.FILE} in {folder}: is it the MODEL_DIR of a run?')
  text = _text(folder / _CONFIG)
  try:
    macros = gin_text.resolved(gin_text.macros(text))
    imports = gin_text.imports(text)
  except ValueError as error:
    raise ValueError(f'{folder / _CONFIG} is damaged: {error}') from error
  return Run(
    folder,
    metric_writer.read(folder) if path_facts.exists(folder / metric_writer.FILE) else [],
    run_dir.read(folder),
    macros,
    imports,
    _text(folder / _OPERATIVE) or text,
  )


def read_measured(model_dir: epath.PathLike) -> Run:
  """Opens the MODEL_DIR of a run that has measured something.

  Raises:
    FileNotFoundError: metrics.jsonl, run.json or config.gin is missing.
    ValueError: nothing was measured yet, or config.gin is no gin.
  """
  folder = epath.Path(model_dir)
  for name in (metric_writer.FILE, run_dir.FILE, _CONFIG):
    if not path_facts.exists(folder / name):
      raise FileNotFoundError(f'no {name} in {folder}: is it the MODEL_DIR of a run?')
  run = read(folder)
  if not run.records:
    raise ValueError(
      f'{folder / metric_writer.FILE} is empty: let the run reach its first progress line '
      '(LOG_PERIOD)'
    )
  return run


def _text(path: epath.Path) -> str:
  try:
    return path.read_text() if path_facts.exists(path) else ''
  except UnicodeDecodeError as error:
    raise ValueError(f'{path} is damaged: {error}') from error
