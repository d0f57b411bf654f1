"""Small random batches with the shapes the trainer sees, packed and not."""

import numpy as np


def packed(rows: int = 4, source: int = 24, target: int = 16, vocab: int = 96, seed: int = 0):
  """Batch of packed rows: each holds two or three examples and some padding; numpy int32 [B, L]."""
  rng = np.random.default_rng(seed)
  batch = _empty(rows, source, target)
  for row in range(rows):
    at = {'encoder': 0, 'decoder': 0}
    for segment in range(1, int(rng.integers(2, 4)) + 1):
      s, t = int(rng.integers(2, source // 3)), int(rng.integers(2, target // 3))
      _place(batch, row, at, segment, rng.integers(3, vocab, s), rng.integers(3, vocab, t))
  return batch


def unpack(batch):
  """The examples of a packed batch, one a row, without segment ids and positions."""
  examples = []
  for row in range(batch['encoder_input_tokens'].shape[0]):
    for segment in range(1, batch['decoder_segment_ids'][row].max() + 1):
      source = batch['encoder_input_tokens'][row][batch['encoder_segment_ids'][row] == segment]
      target = batch['decoder_target_tokens'][row][batch['decoder_segment_ids'][row] == segment]
      examples.append((source, target))
  lengths = [batch[f'{side}_segment_ids'].shape[1] for side in ('encoder', 'decoder')]
  out = _empty(len(examples), *lengths)
  for row, (source, target) in enumerate(examples):
    _place(out, row, {'encoder': 0, 'decoder': 0}, 1, source, target)
  return {k: v for k, v in out.items() if not k.endswith(('_segment_ids', '_positions'))}


def _empty(rows: int, source: int, target: int):
  names = {'encoder': ('input_tokens', 'segment_ids', 'positions')}
  names['decoder'] = ('input_tokens', 'target_tokens', 'segment_ids', 'positions')
  lengths = {'encoder': source, 'decoder': target}
  batch = {
    f'{side}_{name}': np.zeros((rows, lengths[side]), np.int32)
    for side in names
    for name in names[side]
  }
  batch['decoder_loss_weights'] = np.zeros((rows, target), np.float32)
  return batch


def _place(batch, row, at, segment, source, target):
  s, t = at['encoder'], at['decoder']
  encoder, decoder = slice(s, s + len(source)), slice(t, t + len(target))
  batch['encoder_input_tokens'][row, encoder] = source
  batch['encoder_segment_ids'][row, encoder] = segment
  batch['encoder_positions'][row, encoder] = np.arange(len(source))
  batch['decoder_target_tokens'][row, decoder] = target
  batch['decoder_input_tokens'][row, decoder] = [0, *target[:-1]]
  batch['decoder_segment_ids'][row, decoder] = segment
  batch['decoder_positions'][row, decoder] = np.arange(len(target))
  batch['decoder_loss_weights'][row, decoder] = 1.0
  at['encoder'], at['decoder'] = s + len(source), t + len(target)
