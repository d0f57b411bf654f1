"""A trained SentencePiece file in mT5's layout, and random parameters of a small network."""

from pathlib import Path

import numpy as np

from aya_train.checkpoint import layouts
from aya_train.models import t5_config

SENTINELS = 100
VOCAB_ROWS = 640  # more than the pieces, as mT5's 250,112 are more than 250,100
CORPUS = (
  'Mwanaume alifungua bomba la maji na choo kilijaa maji.',
  'Ko sí ìdádúró súnkẹrẹfàkẹrẹ púpọ̀ lórí ojú ọ̀nà.',
  'Đáng lẽ ra anh ấy phải thận trọng hơn nhiều.',
  'كم عدد مرات فوز الأوروغواي ببطولة كأس العالم؟',
  'मैं अपना समय कैसे बचा सकता हूँ?',
  'ฉันรักภาษาไทยและอาหารไทยมาก',
  '私は日本語を勉強しています。カタカナとガギグ。',
  '한국어를 공부하는 학생입니다.',
  'Возможно ли вылечить эту болезнь?',
  'He brought me coffee, and she brought 12 cups of <tea>.',
)


def train_vocabulary(folder: Path) -> Path:
  """Unigram, byte fallback, pad 0, eos 1, unk 2, and the sentinels last, 0 the highest id."""
  import sentencepiece

  corpus = folder / 'corpus.txt'
  corpus.write_text('\n'.join(CORPUS * 20))
  sentencepiece.SentencePieceTrainer.train(
    input=str(corpus),
    model_prefix=str(folder / 'plain'),
    model_type='unigram',
    vocab_size=520,
    character_coverage=0.99,
    required_chars='</>_0123456789xABCDEF',
    byte_fallback=True,
    normalization_rule_name='nmt_nfkc',
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  return add_sentinels(folder / 'plain.model', folder / 'sentencepiece.model')


def add_sentinels(source: Path, target: Path) -> Path:
  """Appends <extra_id_99> ... <extra_id_0> as user-defined pieces, where mT5's file has them."""
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto.FromString(source.read_bytes())
  for i in reversed(range(SENTINELS)):
    # SentencePiece takes no notice of the score of a user-defined piece.
    model.pieces.add(piece=f'<extra_id_{i}>', score=-1000.0, type=4)
  target.write_bytes(model.SerializeToString())
  return target


def config(**overrides) -> t5_config.T5Config:
  """Three encoder and two decoder layers whose heads are wider than the model (3 x 7 = 21 > 20)."""
  return t5_config.T5Config(
    **{
      'vocab_size': VOCAB_ROWS,
      'emb_dim': 20,
      'num_heads': 3,
      'head_dim': 7,
      'mlp_dim': 24,
      'num_encoder_layers': 3,
      'num_decoder_layers': 2,
      **overrides,
    }
  )


def random_params(cfg: t5_config.T5Config, seed: int = 0) -> dict[str, np.ndarray]:
  """Flat float32 parameters; every array differs from all others, norm scales from 1."""
  rng = np.random.default_rng(seed)

  def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    x = rng.normal(size=shape)
    if name.endswith('scale'):
      x = 1 + 0.3 * x
    elif name.endswith('kernel'):
      x *= cfg.emb_dim**-0.5
    return x.astype(np.float32)

  shapes = layouts.expected_shapes(cfg)
  return {name: draw(name, shape) for name, shape in sorted(shapes.items())}
