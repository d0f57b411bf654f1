"""Writes files of the released shapes, with rows written by us."""

import gzip
import json
import pathlib
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def parquet(path: pathlib.Path, rows: Iterable[Mapping[str, Any]], row_group: int = 64) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=row_group)


def jsonl(path: pathlib.Path, rows: Iterable[Any]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  text = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
  if path.name.endswith('.gz'):
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
  else:
    path.write_text(text, encoding='utf-8')


def zipped(path: pathlib.Path, files: Mapping[str, Iterable[Any]]) -> None:
  """A zip of files of JSON lines."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, rows in files.items():
      archive.writestr(name, ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows))


def annotated(
  code: str, name: str, count: int, start: int = 0, **changes: str
) -> list[dict[str, str]]:
  """Rows of the Aya Dataset's config default."""
  row = {'annotation_type': 'original-annotations', 'user_id': 'f' * 64, **changes}
  return [
    {'inputs': f'{name} {i}?', 'targets': f'{name} {i}.', 'language': name, 'language_code': code}
    | row
    for i in range(start, start + count)
  ]


def collected(
  dataset: str, code: str, script: str, count: int, split: str = 'train', **changes: Any
) -> list[dict[str, Any]]:
  """Rows of the Aya Collection."""
  return [
    {
      'id': i,
      'inputs': f'{dataset} {code} {split} {i}?',
      'targets': f'{dataset} {code} {i}.',
      'dataset_name': dataset,
      'sub_dataset_name': '-',
      'task_type': 'question-answering',
      'template_id': 1,
      'language': code,
      'script': script,
      'split': split,
    }
    | changes
    for i in range(count)
  ]


def prompted(
  language: str, dataset: str, config: str, split: str, template: str, count: int
) -> list[dict[str, str]]:
  """Rows of xP3x."""
  return [
    {
      'inputs': f'{language} {dataset} {split} {template} {i}',
      'targets': f'{language} target {i}',
      'language': language,
      'split': split,
      'template': template,
      'dataset': dataset,
      'config': config,
    }
    for i in range(count)
  ]


def prompted_file(
  root: pathlib.Path,
  language: str,
  dataset: str,
  config: str,
  split: str,
  template: str,
  count: int,
  pairs: Iterable[tuple[str, str]] | None = None,
) -> None:
  """A file of xP3x, named as its creation script names it."""
  name = f'xp3_{dataset}_{config}_{split}_{template}.jsonl'
  for character in '/ -':
    name = name.replace(character, '_')
  rows = prompted(language, dataset, config, split, template, count)
  rows = rows if pairs is None else filled(rows, pairs)
  jsonl(root / 'data' / language / name, rows)


def evaluated(
  code: str, script: str, pairs: Iterable[tuple[str, str]], **more: Any
) -> list[dict[str, Any]]:
  """Rows of the evaluation suite."""
  return [
    {'id': i, 'inputs': inputs, 'targets': targets, 'language': code, 'script': script} | more
    for i, (inputs, targets) in enumerate(pairs)
  ]


def labelled(dataset_id: str, pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
  """Flat rows of Data Provenance, as on the hub."""
  return [
    {'user_parent': dataset_id, 'inputs': inputs, 'labels': targets} for inputs, targets in pairs
  ]


def tree(dataset_id: str, pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
  """One conversation of Data Provenance: each question follows the answer before it."""
  messages: list[dict[str, Any]] = []
  for inputs, targets in pairs:
    parent = len(messages) - 1 if messages else dataset_id
    messages.append({'from': 'user', 'text': inputs, 'parent': parent})
    messages.append(
      {'from': 'assistant', 'text': targets, 'parent': len(messages) - 1, 'score': 1.0}
    )
  return messages


def filled(rows: Iterable[Mapping[str, Any]], pairs: Iterable[tuple[str, str]]) -> list[dict]:
  """The rows with these inputs and targets instead of their own; as many as there are pairs."""
  return [
    {**row, 'inputs': inputs, 'targets': targets}
    for row, (inputs, targets) in zip(rows, pairs, strict=True)
  ]
