"""`aya-train embed`: vectors of files or of a SeqIO task, in shards, going on where it was."""

import logging
import time

from etils import epath

from aya_train import batch_progress, hosts, lease, stopping, watchdog
from aya_train.embedding import text_encoder, text_rows, vector_folder

logger = logging.getLogger(__name__)


def embed(
  encoder: text_encoder.TextEncoder,
  rows: text_rows.Rows,
  output: epath.PathLike,
  *,
  what: str,
  prompt: str = '',
  form: str = 'npy',
  store_dtype: str = 'float32',
  shard_rows: int = vector_folder.SHARD_ROWS,
  keep_texts: bool = True,
  bad_rows: text_rows.BadRows = 'refuse',
  overwrite: bool = False,
) -> epath.Path:
  """Writes the vectors of all texts into a folder of shards (vector_folder.py).

  Texts are read twice: once to count them and refuse bad ones, once to embed them. A shard of texts
  is in memory at a time. Shards that an earlier process wrote of the same stay.

  Args:
    encoder: the model.
    rows: the texts.
    output: folder.
    what: the texts are, for messages and for the folder's own account.
    prompt: put before each text.
    form, store_dtype, shard_rows: see `vector_folder.Layout`.
    keep_texts: write the texts beside the ids; mining needs them.
    bad_rows: what happens to rows without a text.
    overwrite: begin anew where the folder holds something else.

  Raises:
    ValueError: bad rows; or the folder holds vectors of something else.
    OSError: the folder cannot be written, or another process writes it (`lease.HeldError`).
    stopping.StoppedError: a signal came; whole shards are written.
  """
  found = text_rows.survey(rows, what, bad_rows=bad_rows)
  layout = vector_folder.Layout(
    found.count, encoder.dimension, form, store_dtype, shard_rows, keep_texts
  )
  about = {**encoder.about, 'prompt': prompt, 'texts': f'{found.count} {found.digest}'}
  with lease.held(output, 'OUTPUT', 'embed') as held:
    writer = vector_folder.VectorWriter(output, about, layout, overwrite=overwrite)
    _write(writer, encoder, rows, prompt, layout, held)
  return epath.Path(output)


def _write(
  writer: vector_folder.VectorWriter,
  encoder: text_encoder.TextEncoder,
  rows: text_rows.Rows,
  prompt: str,
  layout: vector_folder.Layout,
  held: lease.Lease,
) -> None:
  output, count = writer.folder, layout.count
  done = sum(layout.rows_of(shard) for shard in writer.done)
  if len(writer.done) == layout.num_shards:
    logger.info('%s: all %d vectors are there already', output, count)
    return
  if done:
    logger.info('%s: going on after %d of %d vectors', output, done, count)
  progress = batch_progress.BatchProgress('vectors', count, done)
  started = time.monotonic()

  with stopping.stop_on_signal() as stop, watchdog.phase('vectors'):

    def advance(count: int) -> None:
      progress.add(count)
      watchdog.beat()
      stop.check()

    for shard, batch in enumerate(text_rows.batched(text_rows.good(rows), layout.shard_rows)):
      if shard in writer.done:
        continue
      vectors = encoder.vectors([prompt + row.text for row in batch], advance)
      held.check_together()
      writer.write(shard, [row.id for row in batch], [row.text for row in batch], vectors)
  if encoder.num_cut and hosts.is_first():
    logger.warning(
      '%d texts are longer than %d tokens and cut there (--max_length)',
      *(encoder.num_cut, encoder.max_length),
    )
  rate = (count - done) / (time.monotonic() - started)
  logger.info(
    'wrote %d vectors of %d dimensions to %s (%.1f a second)',
    *(count, layout.dimension, output, rate),
  )
