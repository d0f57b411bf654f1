"""Builds a source of synthetic rows: timed, then killed half-way and resumed, then compared.

  python benchmarks/prepare_source.py --rows 1000000 --workers 2 --folder /tmp/prepare

Rows have the Aya Collection's shape, 20 languages in turns, and some 950 bytes of text.
"""

import argparse
import contextlib
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq

from aya_train.tasks import storage
from aya_train.tasks.languages import aya101

CODES = 'yor ara hin zho swa rus tel amh tha fra deu som kat ell heb jpn kor tur vie hau'.split()  # noqa: SIM905
STARTS = {
  'Arab': 0x627,
  'Deva': 0x905,
  'Hani': 0x4E00,
  'Cyrl': 0x430,
  'Telu': 0xC05,
  'Ethi': 0x1200,
}


def words(code: str, count: int, rng: random.Random) -> str:
  start = STARTS.get(aya101.by_code(code).script_code, 0x61)
  return ' '.join(
    ''.join(chr(start + rng.randrange(24)) for _ in range(rng.randrange(2, 9)))
    for _ in range(count)
  )


def write_release(folder: pathlib.Path, rows: int, shards: int = 4) -> None:
  rng = random.Random(0)
  texts = {code: [words(code, 60, rng) for _ in range(200)] for code in CODES}
  folder.mkdir(parents=True)
  for shard in range(shards):
    path = folder / f'train-{shard:05d}-of-{shards:05d}.parquet'
    writer = None
    for start in range(shard * rows // shards, (shard + 1) * rows // shards, 10_000):
      end = min((shard + 1) * rows // shards, start + 10_000)
      codes = [CODES[i // 50 % len(CODES)] for i in range(start, end)]
      table = pa.table(
        {
          'id': list(range(start, end)),
          'inputs': [f'{i} {rng.choice(texts[c])}' for i, c in enumerate(codes, start)],
          'targets': [rng.choice(texts[c]) for c in codes],
          'dataset_name': ['Dolly-v2 (T)'] * len(codes),
          'task_type': ['question-answering'] * len(codes),
          'language': codes,
          'script': [aya101.by_code(c).script_code for c in codes],
          'split': ['train'] * len(codes),
        }
      )
      writer = writer or pq.ParquetWriter(path, table.schema)
      writer.write_table(table, row_group_size=1_000)
    if writer is not None:
      writer.close()


def start(release: pathlib.Path, cache: pathlib.Path, workers: int) -> subprocess.Popen[bytes]:
  command = [sys.executable, '-m', 'aya_train', 'prepare', 'aya_collection_translated.dolly']
  command += ['--data_dir', str(release), '--workers', str(workers)]
  environment = {**os.environ, storage.CACHE_ENV: str(cache)}
  return subprocess.Popen(command, env=environment, start_new_session=True)


def hashes(cache: pathlib.Path) -> dict[str, str]:
  built = cache / 'tensorflow_datasets' / 'aya_collection_translated'
  return {
    str(path.relative_to(built)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(built.rglob('*'))
    if path.is_file()
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rows', type=int, default=1_000_000)
  parser.add_argument('--workers', type=int, default=os.cpu_count() or 1)
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  args = parser.parse_args()
  release = args.folder / 'release' / 'translated_dolly'
  if not release.exists():
    write_release(release, args.rows)
  for cache in ('whole', 'killed'):
    shutil.rmtree(args.folder / cache, ignore_errors=True)
  began = time.monotonic()
  if start(release.parent, args.folder / 'whole', args.workers).wait():
    sys.exit('the build failed')
  print(f'built {args.rows:,} rows in {time.monotonic() - began:.1f} s')
  process = start(release.parent, args.folder / 'killed', args.workers)
  work = args.folder / 'killed' / 'tensorflow_datasets' / 'in_progress'
  units = max(1, args.rows // 200_000)  # a unit has some 100,000 rows
  while process.poll() is None and len(list(work.glob('*/units/[0-9]*'))) < units:
    time.sleep(0.2)
  with contextlib.suppress(ProcessLookupError):  # few rows: it was quicker
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  print(f'killed with {len(list(work.glob("*/units/[0-9]*")))} units done')
  began = time.monotonic()
  if start(release.parent, args.folder / 'killed', args.workers).wait():
    sys.exit('the resumed build failed')
  print(f'resumed in {time.monotonic() - began:.1f} s')
  same = hashes(args.folder / 'whole') == hashes(args.folder / 'killed')
  print(f'{len(hashes(args.folder / "whole"))} files, {"the same" if same else "DIFFERENT"} bytes')
  sys.exit(0 if same else 1)


if __name__ == '__main__':
  main()
