"""Random translation models of real architectures, converted by CTranslate2's own converter."""

import io
import json
import pathlib

import sentencepiece

from aya_train.checkpoint.hf import hf_export
from aya_train.export import ct2_model
from tests.checkpoint import small_model

LANGUAGES = ['eng_Latn', 'fra_Latn', 'yor_Latn', 'tha_Thai', 'arb_Arab', 'zho_Hans']
TEXT = [
  'The quick brown fox jumps over the lazy dog, again and again.',
  'Where is the station? It is 12 km away; take the bus [1] or [2].',
  'Ko sí ìdádúró. Mo fẹ́ kọfí méjì.',
  'ส่วนใหญ่ของประเทศ',
  'كيف حالك اليوم؟',
  '你好。再见！',
]


def nllb(folder: pathlib.Path, **options) -> pathlib.Path:
  """An M2M-100 model with NLLB's tokens, one layer each, and its tokenizer.json."""
  import ctranslate2
  import tokenizers
  import torch
  import transformers
  from tokenizers import models, pre_tokenizers, trainers

  trained = tokenizers.Tokenizer(models.BPE(unk_token='<unk>'))
  trained.pre_tokenizer = pre_tokenizers.Metaspace()
  first = ['<s>', '<pad>', '</s>', '<unk>']
  trained.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=300, special_tokens=first))
  path = folder / 'bpe'
  path.mkdir(parents=True)
  trained.model.save(str(path))
  vocab = json.loads((path / 'vocab.json').read_text())
  lines = (path / 'merges.txt').read_text().split('\n')[1:]
  merges = [tuple(line.split(' ')) for line in lines if line]
  tokenizer = transformers.NllbTokenizer(
    vocab=vocab, merges=merges, extra_special_tokens=LANGUAGES, src_lang='eng_Latn'
  )
  torch.manual_seed(0)
  model = transformers.M2M100ForConditionalGeneration(
    transformers.M2M100Config(
      vocab_size=len(tokenizer),
      d_model=16,
      encoder_layers=1,
      decoder_layers=1,
      encoder_attention_heads=2,
      decoder_attention_heads=2,
      encoder_ffn_dim=32,
      decoder_ffn_dim=32,
      max_position_embeddings=256,
      **options,
    )
  )
  hf = folder / 'hf'
  model.save_pretrained(str(hf))
  tokenizer.save_pretrained(str(hf))
  out = folder / 'tiny-nllb'
  ctranslate2.converters.TransformersConverter(str(hf), copy_files=['tokenizer.json']).convert(
    str(out)
  )
  return out


def madlad(folder: pathlib.Path) -> pathlib.Path:
  """A T5 of our own export whose vocabulary has MADLAD-400's tokens of languages."""
  written = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXT * 4),
    model_writer=written,
    vocab_size=200,
    hard_vocab_limit=False,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    minloglevel=2,
    user_defined_symbols=['<2en>', '<2yo>', '<2th>', '<2ar>'],
  )
  folder.mkdir(parents=True, exist_ok=True)
  file = folder / 'spiece.model'
  file.write_bytes(written.getvalue())
  config = small_model.config(scan_layers=False)
  hf = hf_export.export(small_model.random_params(config), config, file, folder / 'hf')
  return pathlib.Path(ct2_model.to_ctranslate2(hf, folder / 'tiny-madlad', quantisation='float32'))
