"""Every parser of the project, with inputs that are valid for it."""

import collections
import gzip
import io
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gin
import numpy as np
import pyarrow as pa
from array_record.python import array_record_module
from etils import epath
from pyarrow import parquet

from aya_train import config, gin_outline, gin_text, metric_writer, run_dir
from aya_train.checkpoint import formats, manager, vocabularies
from aya_train.checkpoint.arrays import lazy_arrays, msgpack_index, orbax_tree, safetensors_file
from aya_train.checkpoint.hf import hf_config, hf_files
from aya_train.checkpoint.t5x import t5x_format, t5x_gin
from aya_train.cli import gin_args
from aya_train.data import prepared
from aya_train.report import run_record
from aya_train.tasks.building import read_report, records, row_splits
from aya_train.tasks.languages import aya101, language_codes
from aya_train.tasks.rights import licenses, provenance
from aya_train.tasks.user import dataset_tables, template_language, templates, user_data
from aya_train.tpu import hlo, topologies
from tests.faults.fuzz import samples
from tests.faults.fuzz.trials import Parser

Run = Callable[[bytes, pathlib.Path], Any]


def _json(*values: Any) -> Callable[[], list[bytes]]:
  return lambda: [json.dumps(value, ensure_ascii=False).encode() for value in values]


def _texts(*values: str) -> Callable[[], list[bytes]]:
  return lambda: [value.encode() for value in values]


def _of_text(parse: Callable[[str], Any]) -> Run:
  """A parser of a text that reads no file."""
  return lambda data, folder: parse(data.decode('utf-8', 'replace'))


def _of_file(name: str, parse: Callable[[epath.Path], Any]) -> Run:
  """A parser of a file: of the path of the file."""

  def run(data: bytes, folder: pathlib.Path) -> Any:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return parse(epath.Path(folder / name))

  return run


def _in_folder(name: str, parse: Callable[[epath.Path], Any]) -> Run:
  """A parser of a folder with that file."""
  return _of_file(name, lambda path: parse(epath.Path(str(path).removesuffix(f'/{name}'))))


def _all(found: Iterator[Any]) -> None:
  collections.deque(found, maxlen=0)


# Tables, templates, rows --------------------------------------------------------------------------


def _dataset(folder: pathlib.Path, file: str, **more: Any) -> Any:
  return dataset_tables.Dataset('d', {'train': (file,)}, language='eng', folder=str(folder), **more)


def _rows(name: str) -> Run:
  def run(data: bytes, folder: pathlib.Path) -> None:
    (folder / name).write_bytes(data)
    _all(user_data.raw_rows(_dataset(folder, name), 'train'))

  return run


def _instructions(data: bytes, folder: pathlib.Path) -> None:
  (folder / 'rows.jsonl').write_bytes(data)
  _all(user_data.instructions(_dataset(folder, 'rows.jsonl'), 'train'))


def _jinja(data: bytes, folder: pathlib.Path) -> None:
  # In the product a process with less memory and a second of time runs it (template_worker.py).
  template = template_language.Template('t', data.decode('utf-8', 'replace'), max_characters=2048)
  template.apply(samples.ROW, 0)


def _gz(text: str) -> Callable[[], list[bytes]]:
  return lambda: [gzip.compress(text.encode()), gzip.compress(text.encode() * 50)]


def _parquet_file() -> list[bytes]:
  table = pa.table({'inputs': ['a', 'b', None], 'targets': ['c', 'd', 'e'], 'n': [1, 2, 3]})
  found = []
  for compression in ('snappy', 'none', 'zstd'):
    out = io.BytesIO()
    parquet.write_table(table, out, compression=compression)
    found.append(out.getvalue())
  return found


# Names --------------------------------------------------------------------------------------------


def _language(text: str) -> None:
  code, _, script = text.partition('|')
  language_codes.resolve(code, script or None)


def _license(text: str) -> None:
  name, _, url = text.partition('|')
  licenses.classify(name, url)


def _gin_args(text: str) -> None:
  gin_args.rewrite_gin_args(text.split('\x1f'))


def _binding(text: str) -> None:
  with gin.unlock_config():  # finalised, if others were parsed before in this process
    gin_outline.check_known(text, ('BATCH_SIZE', 'TASK_FEATURE_LENGTHS', 'MODEL_DIR'))
    config._parse_binding(text)


def _hlo(text: str) -> None:
  module = hlo.parse(text)
  for computation, _ in module.executed():
    for instruction in computation.instructions:
      instruction.op_name, instruction.stack_frame  # noqa: B018
      module.source_line(instruction, 'aya_train')


# Checkpoints --------------------------------------------------------------------------------------


def _hf_config(folder: epath.Path) -> None:
  hf_files.dtype_of(folder)
  hf_config.from_hf_config(hf_files.read_config(folder), has_head=True, where=str(folder))


def _arrays() -> dict[str, Any]:
  return {
    'target/encoder/x': np.arange(24, dtype=np.float32).reshape(4, 6),
    'target/decoder/y': np.ones((3,), np.float32),
  }


def _read_all(found: Any) -> None:
  for array in found.values():
    np.asarray(array)


def _safetensors() -> list[bytes]:
  with tempfile.TemporaryDirectory() as folder:
    path = epath.Path(folder) / 'model.safetensors'
    safetensors_file.write(path, _leaves(), np.dtype(np.float32), lambda rows, dtype, name: rows)
    return [path.read_bytes()]


def _t5x(folder: pathlib.Path) -> None:
  import jax

  state = {
    'version': 3,
    'optimizer': {
      'state': {'step': np.int32(7)},
      'target': {'x': np.ones((2, 3), np.float32), 'y': jax.numpy.zeros((2,))},
    },
  }
  from flax import serialization

  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'checkpoint').write_bytes(serialization.msgpack_serialize(jax.device_get(state)))


def _t5x_index() -> list[bytes]:
  with tempfile.TemporaryDirectory() as folder:
    _t5x(pathlib.Path(folder))
    inline = (pathlib.Path(folder) / 'checkpoint').read_bytes()
    whole = epath.Path(folder) / 'checkpoint_7'
    t5x_format.write(whole, _leaves())
    return [inline, (whole / 'checkpoint').read_bytes()]


def _leaves() -> dict[str, lazy_arrays.LazyArray]:
  return {k: lazy_arrays.of(v) for k, v in _arrays().items()}


class _Stored:
  """A checkpoint of which one file is replaced, and put back."""

  def __init__(self, write: Callable[[epath.Path], None], ending: str, read: Callable[..., Any]):
    self._write, self._ending, self._read = write, ending, read

  def samples(self) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
      return [self._file(pathlib.Path(folder)).read_bytes()]

  def _file(self, folder: pathlib.Path) -> pathlib.Path:
    whole = folder / 'stored'
    if not whole.exists():
      self._write(epath.Path(whole))
    return min(path for path in whole.rglob('*') if str(path).endswith(self._ending))

  def run(self, data: bytes, folder: pathlib.Path) -> None:
    self._file(folder).write_bytes(data)
    self._read(epath.Path(folder / 'stored'))


_METADATA = _Stored(lambda out: t5x_format.write(out, _leaves()), '.zarray', t5x_format.read)
_CHUNK = _Stored(
  lambda out: t5x_format.write(out, _leaves()), '0.0', lambda p: _read_all(t5x_format.read(p))
)


def _orbax(out: epath.Path) -> None:
  import orbax.checkpoint as ocp

  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(out, {'x': np.ones((2, 3), np.float32), 'y': {'z': np.zeros(4)}})


_ORBAX = _Stored(_orbax, '_METADATA', orbax_tree.read)


def _positions(folder: epath.Path) -> None:
  manager.data_states(folder, 5)


def _prepared(out: epath.Path) -> None:
  out.mkdir()
  shard = out / 'examples-00000-of-00001.array_record'
  writer = array_record_module.ArrayRecordWriter(str(shard), prepared.WRITER_OPTIONS)
  for _ in range(2):
    writer.write(prepared.encode_example([np.arange(3, dtype=np.int32)]))
  writer.close()
  manifest = prepared.Manifest(
    't', 'train', 2, (prepared.shard_of(shard, 2),), {'inputs': {3: 2}},
    {'inputs': 6}, {'inputs': 1}, 'a', 'b', {'files': []}, {'format': prepared.FORMAT},
  )  # fmt: skip
  (out / prepared.MANIFEST).write_text(manifest.to_json())


def _read_prepared(folder: epath.Path) -> None:
  task = prepared.PreparedTask(folder)
  [task[i] for i in range(len(task))]


_PREPARED = _Stored(_prepared, 'manifest.json', _read_prepared)
_SHARD = _Stored(_prepared, '.array_record', prepared.PreparedTask)


def _record(folder: epath.Path) -> None:
  (folder / run_dir.FILE).write_text(json.dumps(samples.RUN))
  run_record.read(folder)


def _vocabulary() -> list[bytes]:
  import sentencepiece

  out = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(['some words of a text', 'and others'] * 20),
    model_writer=out, vocab_size=30, hard_vocab_limit=False, minloglevel=2,
  )  # fmt: skip
  return [out.getvalue()]


def _tfrecord() -> list[bytes]:
  import tensorflow as tf

  with tempfile.TemporaryDirectory() as folder:
    with tf.io.TFRecordWriter(f'{folder}/x') as writer:
      for text in (b'one', b'two' * 40):
        writer.write(text)
    return [pathlib.Path(f'{folder}/x').read_bytes()]


def _limits() -> tuple[type[BaseException], ...]:
  return (ValueError, OSError, MemoryError, RecursionError)


PARSERS: Sequence[Parser] = (
  Parser(
    'license', 110, _texts('CC BY-NC-SA 3.0', 'Custom|https://x', 'Apache-2.0'), _of_text(_license)
  ),
  Parser(
    'language code',
    110,
    _texts('swa', 'arb', 'zh-Hant', 'tgl|Latn', 'eng_Latn'),
    _of_text(_language),
  ),
  Parser('Aya language', 60, _texts('swa', 'zho', 'pes'), _of_text(aya101.by_code)),
  Parser('slice name', 60, _texts('v4-128', 'tpu_v5e_16', 'v4-4x4x12'), _of_text(topologies.get)),
  Parser(
    'gin arguments', 60, _texts('--gin.A=1\x1f--gin_file=x', '--gin.B="a=b"'), _of_text(_gin_args)
  ),
  Parser(
    'gin binding',
    30,
    _texts(
      'BATCH_SIZE = 8',
      "TASK_FEATURE_LENGTHS = {'inputs': 128, 'targets': 64}",
      'MODEL_DIR="x"',
    ),
    _of_text(_binding),
  ),
  Parser('gin text', 25, _texts(samples.GIN), _of_text(gin_text.bindings)),
  Parser(
    'run record', 10, _texts(samples.GIN), _in_folder('config.gin', _record), file='config.gin'
  ),
  Parser(
    'HLO arrays',
    60,
    _texts('f32[8,16]{1,0:T(8,128)S(1)}', '(s32[], bf16[2]{0})'),
    _of_text(hlo.arrays),
  ),
  Parser('HLO text', 30, _texts(samples.HLO), _of_text(_hlo)),
  Parser(
    'table TOML',
    40,
    _texts(samples.TOML),
    _of_file('table.toml', dataset_tables.read),
    file='table.toml',
  ),
  Parser(
    'table YAML',
    8,
    _texts(samples.YAML_TABLE),
    _of_file('table.yaml', dataset_tables.read),
    file='table.yaml',
  ),
  Parser(
    'table CSV',
    25,
    _texts(samples.CSV_TABLE),
    _of_file('table.csv', dataset_tables.read),
    file='table.csv',
  ),
  Parser(
    'template YAML', 6, _texts(samples.TEMPLATES), _of_file('t.yaml', templates.read), file='t.yaml'
  ),
  Parser(
    'template text', 10, _texts(*samples.JINJA), _of_file('t.jinja', templates.read), file='t.jinja'
  ),
  Parser('template', 10, _texts(*samples.JINJA), _jinja, _limits()),
  Parser(
    'JSON line',
    60,
    _texts(*samples.JSONL.splitlines()),
    lambda data, folder: records.parse_line(data),
  ),
  Parser('rows CSV', 30, _texts(samples.CSV), _rows('rows.csv'), file='rows.csv'),
  Parser(
    'rows TSV', 10, _texts(samples.CSV.replace(',', '\t')), _rows('rows.tsv'), file='rows.tsv'
  ),
  Parser('rows CSV gzip', 8, _gz(samples.CSV), _rows('rows.csv.gz'), file='rows.csv.gz'),
  Parser('rows JSONL', 30, _texts(samples.JSONL), _rows('rows.jsonl'), file='rows.jsonl'),
  Parser('rows JSONL gzip', 8, _gz(samples.JSONL), _rows('rows.jsonl.gz'), file='rows.jsonl.gz'),
  Parser('rows parquet', 5, _parquet_file, _rows('rows.parquet'), file='rows.parquet'),
  Parser('instructions', 20, _texts(samples.JSONL), _instructions, file='rows.jsonl'),
  Parser(
    'summaries',
    15,
    _json(samples.SUMMARY),
    _in_folder('s.json', provenance.read_summaries),
    file='s.json',
  ),
  Parser(
    'TFRecord frames',
    15,
    _tfrecord,
    _of_file('x.tfrecord', lambda p: _all(row_splits.frames(p))),
    file='x.tfrecord',
  ),
  Parser(
    'read report',
    15,
    _texts(read_report.ReadReport().to_json()),
    _of_text(read_report.ReadReport.from_json),
  ),
  Parser('prepared manifest', 12, _PREPARED.samples, _PREPARED.run, file='stored'),
  Parser('prepared shard', 3, _SHARD.samples, _SHARD.run, file='array_record'),
  Parser('run.json', 20, _json(samples.RUN), _in_folder('run.json', run_dir.read), file='run.json'),
  Parser(
    'metrics.jsonl',
    20,
    _texts(samples.METRICS),
    _in_folder('metrics.jsonl', metric_writer.read),
    file='metrics.jsonl',
  ),
  Parser(
    'data positions',
    15,
    _json(samples.POSITION),
    _in_folder('checkpoints/5/data/process_0-of-1.json', _positions),
    file='process_0',
  ),
  Parser('HF config', 25, _json(samples.CONFIG), _in_folder('config.json', _hf_config)),
  Parser(
    'HF index',
    15,
    _json({'weight_map': {'a': 'x.safetensors'}}),
    _in_folder(hf_files.INDEX, hf_files.safetensors_files),
    file='index.json',
  ),
  Parser(
    'safetensors',
    20,
    _safetensors,
    _of_file('m.safetensors', lambda p: _read_all(safetensors_file.open_file(p))),
    file='m.safetensors',
  ),
  Parser(
    'T5X index', 15, _t5x_index, _in_folder('checkpoint', msgpack_index.read), file='checkpoint'
  ),
  Parser(
    'T5X config.gin',
    4,
    _texts(samples.T5X_GIN),
    _of_file('config.gin', t5x_gin.read),
    file='config.gin',
  ),
  Parser('T5X inline', 4, lambda: _t5x_index()[:1], _in_folder('checkpoint', t5x_format.read)),
  Parser('zarr metadata', 2, _METADATA.samples, _METADATA.run),
  Parser('zarr chunk', 2, _CHUNK.samples, _CHUNK.run),
  Parser('Orbax tree', 2, _ORBAX.samples, _ORBAX.run),
  Parser('any checkpoint', 4, lambda: _t5x_index()[:1], _in_folder('checkpoint', formats.detect)),
  Parser('vocabulary', 4, _vocabulary, _of_file('v.model', vocabularies.pieces), file='v.model'),
)


def named(name: str) -> Parser:
  (found,) = [parser for parser in PARSERS if parser.name == name]
  return found
