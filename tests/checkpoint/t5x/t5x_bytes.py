"""T5X's native format byte by byte, apart from the code under test: json, gzip and msgpack alone.

    checkpoint      msgpack map {version: 3, optimizer: {target: …, state: {step, param_states}}}
      an inline leaf    extension 1, itself msgpack of (shape, name of dtype, bytes in C order)
      a numpy scalar    extension 3, likewise with shape ()
      a stored leaf     map: driver 'zarr', dtype, kvstore {driver, path 'NAME/'}, metadata
    NAME/.zarray    JSON: zarr_format 2, shape, chunks, dtype '<f4' or 'bfloat16', compressor,
                    order C
    NAME/I.J        chunk at (I, J), C order, compressed; at the far edges padded to a whole chunk
NAME is the leaf's path below `optimizer`, joined by dots.
"""

import gzip
import itertools
import json
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
from flax import traverse_util

GZIP = {'id': 'gzip', 'level': 1}


def inline(array) -> msgpack.ExtType:
  array = np.asarray(array)
  content = msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True)
  return msgpack.ExtType(3 if array.shape == () else 1, content)


def stored(
  folder: Path, name: str, array: np.ndarray, chunks=None, compressor=GZIP, driver='file', v2=False
):
  """Writes one array and returns its entry in the index.

  Args:
    v2: put `path` beside `kvstore` instead of inside, as older files do.
  """
  path, chunks = name.replace('/', '.'), tuple(chunks or array.shape)
  dtype = 'bfloat16' if array.dtype == ml_dtypes.bfloat16 else '<f4'
  (folder / path).mkdir()
  (folder / path / '.zarray').write_text(
    json.dumps(
      {
        'zarr_format': 2,
        'shape': array.shape,
        'chunks': chunks,
        'dtype': dtype,
        'compressor': compressor,
        'fill_value': None,
        'filters': None,
        'order': 'C',
        'dimension_separator': '.',
      }
    )
  )
  for position in itertools.product(
    *(range(-(-n // c)) for n, c in zip(array.shape, chunks, strict=True))
  ):
    index = tuple(slice(i * c, (i + 1) * c) for i, c in zip(position, chunks, strict=True))
    part = array[index]
    chunk = np.zeros(chunks, array.dtype)
    chunk[tuple(slice(n) for n in part.shape)] = part
    content = chunk.tobytes()
    if compressor == GZIP:
      content = gzip.compress(content, 1)
    elif compressor is not None:
      content = _zstd(content)
    (folder / path / '.'.join(map(str, position))).write_bytes(content)
  kvstore: dict = {'driver': driver}
  if driver == 'gcs':
    kvstore['bucket'] = 't5x-dummy-bucket'
  entry = {
    'driver': 'zarr',
    'dtype': array.dtype.name,
    'kvstore': kvstore,
    'metadata': {'shape': list(array.shape), 'chunks': list(chunks), 'compressor': compressor},
  }
  (entry if v2 else kvstore)['path'] = path + '/'
  return entry


def _zstd(content: bytes) -> bytes:
  """A zstd frame of one raw block (RFC 8878, section 3.1.1)."""
  assert len(content) < 1 << 17
  single_segment_with_four_bytes_of_size = b'\xa0'
  frame = b'\x28\xb5\x2f\xfd' + single_segment_with_four_bytes_of_size
  block = (1 | len(content) << 3).to_bytes(3, 'little')
  return frame + len(content).to_bytes(4, 'little') + block + content


def write(folder: Path, leaves: dict[str, np.ndarray], version=3, inlined=(), **kwargs) -> Path:
  """Writes a whole checkpoint; leaves whose name ends with one of `inlined` stand in the index."""
  folder.mkdir(parents=True)
  tree = {}
  for name, array in leaves.items():
    array = np.asarray(array)
    small = array.ndim < 2 or name.endswith(tuple(inlined))
    tree[name] = inline(array) if small else stored(folder, name, array, **kwargs)
  index = {'version': version, 'optimizer': traverse_util.unflatten_dict(tree, sep='/')}
  (folder / 'checkpoint').write_bytes(msgpack.packb(index, strict_types=True))
  return folder


def unpack(folder: Path) -> dict:
  """The index with its extensions as they are, to be packed again."""
  return msgpack.unpackb((folder / 'checkpoint').read_bytes(), strict_map_key=False)


def read_index(folder: Path) -> dict:
  """The index as msgpack has it; extensions become ('ext', code, content)."""
  return msgpack.unpackb(
    (folder / 'checkpoint').read_bytes(),
    ext_hook=lambda code, content: ('ext', code, msgpack.unpackb(content)),
    strict_map_key=False,
  )


def read_stored(folder: Path, entry: dict) -> np.ndarray:
  """One array by its entry, chunk by chunk."""
  path = folder / entry['kvstore']['path']
  described = json.loads((path / '.zarray').read_text())
  dtype = np.dtype(ml_dtypes.bfloat16 if described['dtype'] == 'bfloat16' else described['dtype'])
  assert described['compressor'] == GZIP
  assert (described['zarr_format'], described['order']) == (2, 'C')
  shape, chunks = described['shape'], described['chunks']
  out = np.empty(shape, dtype)
  for position in itertools.product(
    *(range(-(-n // c)) for n, c in zip(shape, chunks, strict=True))
  ):
    content = gzip.decompress((path / '.'.join(map(str, position))).read_bytes())
    chunk = np.frombuffer(content, dtype).reshape(chunks)
    index = tuple(slice(i * c, (i + 1) * c) for i, c in zip(position, chunks, strict=True))
    part = out[index]
    part[...] = chunk[tuple(slice(n) for n in part.shape)]
  return out
