"""Shards of vectors: complete or not there, the same bytes whenever they were made."""

import json
import re

import numpy as np
import pytest

from aya_train import lease
from aya_train.embedding import (
  encoder_checkpoint,
  text_embedding,
  text_encoder,
  text_rows,
  vector_folder,
)


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def embed(encoder, corpus_file, folder, **options):
  rows = text_rows.of_files([corpus_file])
  return text_embedding.embed(encoder, rows, folder, what='corpus', **{'shard_rows': 10, **options})


class Killed(BaseException):
  pass


def killed_after(encoder, batches):
  """The encoder, whose process ends after so many batches."""
  left = [batches]
  vectors = encoder.vectors

  class Encoder:
    def __getattr__(self, name):
      return getattr(encoder, name)

    def vectors(self, texts, advance):
      left[0] -= 1
      if left[0] < 0:
        raise Killed
      return vectors(texts, advance)

  return Encoder()


@pytest.mark.parametrize('form', ['npy', 'parquet'])
def test_what_goes_on_has_the_same_bytes(encoder, corpus_file, tmp_path, form):
  embed(encoder, corpus_file, tmp_path / 'whole', form=form)
  whole = contents(tmp_path / 'whole')
  with pytest.raises(Killed):
    embed(killed_after(encoder, 2), corpus_file, tmp_path / 'cut', form=form)
  begun = contents(tmp_path / 'cut')
  assert 0 < len(begun) < len(whole)
  torn = next(name for name in begun if name.endswith(('.npy', '.parquet')))
  (tmp_path / 'cut' / torn).write_bytes(begun[torn][:-20])
  embed(encoder, corpus_file, tmp_path / 'cut', form=form)
  assert contents(tmp_path / 'cut') == whole
  embed(killed_after(encoder, 0), corpus_file, tmp_path / 'cut', form=form)  # nothing is left


def test_what_is_written_is_read(encoder, corpus_file, tmp_path):
  embed(encoder, corpus_file, tmp_path / 'v', store_dtype='float16')
  found = vector_folder.VectorFolder(tmp_path / 'v')
  rows = [json.loads(line) for line in corpus_file.read_text().splitlines()]
  assert found.ids() == [row['_id'] for row in rows]
  assert [found.text(i) for i in (0, 9, 10, 47)] == [rows[i]['text'] for i in (0, 9, 10, 47)]
  wanted = encoder.vectors([row['text'] for row in rows])
  tiles = list(found.tiles(7))
  assert [first for first, _ in tiles][:4] == [0, 7, 10, 17]
  np.testing.assert_allclose(np.concatenate([v for _, v in tiles]), wanted, atol=1e-3)
  np.testing.assert_allclose(found.rows([12, 3]), wanted[[12, 3]], atol=1e-3)
  assert isinstance(found.shard(0), np.memmap)


def test_parquet_has_ids_texts_and_vectors(encoder, corpus_file, tmp_path):
  import pyarrow.parquet as pq

  embed(encoder, corpus_file, tmp_path / 'v', form='parquet', keep_texts=False)
  table = pq.read_table(tmp_path / 'v' / 'part-00004-of-00005.parquet')
  assert table.column_names == ['id', 'embedding']
  assert table['id'].to_pylist() == [f'd{i}' for i in range(40, 48)]
  assert len(table['embedding'][0]) == encoder.dimension


def test_vectors_of_something_else_are_refused(run, encoder, corpus_file, tmp_path):
  embed(encoder, corpus_file, tmp_path / 'v')
  checkpoint = encoder_checkpoint.open_checkpoint(run[0])
  narrow = text_encoder.TextEncoder(
    checkpoint, text_encoder.partitioner(), text_encoder.Settings(dimension=4)
  )
  with pytest.raises(ValueError, match=r'dimension was 12, now 4.*--overwrite'):
    embed(narrow, corpus_file, tmp_path / 'v')
  with pytest.raises(ValueError, match="prompt was '', now 'query: '"):
    embed(encoder, corpus_file, tmp_path / 'v', prompt='query: ')
  with pytest.raises(ValueError, match="form was 'npy', now 'parquet'"):
    embed(encoder, corpus_file, tmp_path / 'v', form='parquet')
  other = tmp_path / 'other.jsonl'
  other.write_text(corpus_file.read_text().replace('coffee', 'tea'))
  with pytest.raises(ValueError, match=r'texts was .*, now '):
    embed(encoder, other, tmp_path / 'v')
  embed(encoder, other, tmp_path / 'v', overwrite=True)
  assert 'tea' in vector_folder.VectorFolder(tmp_path / 'v').text(9)
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'mine.txt').write_text('x')
  with pytest.raises(ValueError, match=r'is not empty, and no embeddings\.json'):
    embed(encoder, corpus_file, tmp_path / 'full')


def test_damage_is_refused_and_mended_by_the_same_command(encoder, corpus_file, tmp_path):
  folder = tmp_path / 'v'
  embed(encoder, corpus_file, folder)
  whole = contents(folder)

  def read():
    found = vector_folder.VectorFolder(folder)
    tiles = [v.tobytes() for _, v in found.tiles(7)]
    return found.ids(), [found.text(i) for i in range(len(found))], tiles, found.about

  expected = read()
  for name, content in whole.items():
    for place in (len(content) // 3, len(content) - 5):
      flipped = bytes([content[place] ^ 4])
      (folder / name).write_bytes(content[:place] + flipped + content[place + 1 :])
      with pytest.raises(ValueError, match=re.escape(name)):
        read()
      if name != vector_folder.ABOUT:
        embed(encoder, corpus_file, folder)
        assert contents(folder) == whole
    for cut in (b'', content[: len(content) // 2]):
      (folder / name).write_bytes(cut)
      with pytest.raises(ValueError, match=re.escape(name)):
        read()
      if name != vector_folder.ABOUT:
        embed(encoder, corpus_file, folder)
        assert contents(folder) == whole
    (folder / name).write_bytes(content)
  assert read() == expected


def test_damage_of_parquet_is_seen_by_its_readers_and_mended(encoder, corpus_file, tmp_path):
  import pyarrow.parquet as pq

  embed(encoder, corpus_file, tmp_path / 'v', form='parquet')
  path = tmp_path / 'v' / 'part-00000-of-00005.parquet'
  content = path.read_bytes()
  place = content.index(np.float32(pq.read_table(path)['embedding'][3][2].as_py()).tobytes())
  path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
  with pytest.raises(OSError, match='CRC'):
    pq.read_table(path, page_checksum_verification=True)
  embed(encoder, corpus_file, tmp_path / 'v', form='parquet')
  assert path.read_bytes() == content


@pytest.mark.parametrize('overwrite', [False, True])
def test_a_folder_that_another_process_writes_is_left_alone(
  encoder, corpus_file, tmp_path, overwrite
):
  embed(encoder, corpus_file, tmp_path / 'v')
  with lease.held(tmp_path / 'v', 'OUTPUT', 'embed'):
    before = contents(tmp_path / 'v')
    with pytest.raises(lease.HeldError, match='is in use by another command'):
      embed(encoder, corpus_file, tmp_path / 'v', prompt='query: ', overwrite=overwrite)
    assert contents(tmp_path / 'v') == before


def test_a_folder_that_is_none_is_refused(encoder, corpus_file, tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no embeddings\.json'):
    vector_folder.VectorFolder(tmp_path)
  embed(encoder, corpus_file, tmp_path / 'v')
  (tmp_path / 'v' / 'vectors-00001-of-00005.npy').unlink()
  with pytest.raises(FileNotFoundError, match='goes on where it was'):
    vector_folder.VectorFolder(tmp_path / 'v')
  embed(encoder, corpus_file, tmp_path / 'p', form='parquet')
  with pytest.raises(ValueError, match='search needs --format npy'):
    vector_folder.VectorFolder(tmp_path / 'p')
