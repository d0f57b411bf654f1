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


_SMALL = {
  'd_model': 16,
  'encoder_layers': 1,
  'decoder_layers': 1,
  'encoder_attention_heads': 2,
  'decoder_attention_heads': 2,
  'encoder_ffn_dim': 32,
  'decoder_ffn_dim': 32,
  'max_position_embeddings': 256,
}


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
      **{**_SMALL, **options},
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


def _pieces(**options) -> bytes:
  """A SentencePiece model of `TEXT`."""
  written = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXT * 4),
    model_writer=written,
    vocab_size=200,
    hard_vocab_limit=False,
    minloglevel=2,
    **options,
  )
  return written.getvalue()


_IDS = {'pad_id': 0, 'eos_id': 1, 'unk_id': 2, 'bos_id': -1}


def t5(folder: pathlib.Path, symbols=('<2en>', '<2yo>', '<2th>', '<2ar>')) -> pathlib.Path:
  """A T5 of our own export; its vocabulary has MADLAD-400's tokens of languages, unless others."""
  folder.mkdir(parents=True, exist_ok=True)
  file = folder / 'spiece.model'
  file.write_bytes(_pieces(user_defined_symbols=list(symbols), **_IDS))
  config = small_model.config(scan_layers=False)
  hf = hf_export.export(small_model.random_params(config), config, file, folder / 'hf')
  return pathlib.Path(ct2_model.to_ctranslate2(hf, folder / 'tiny-t5', quantisation='float32'))


def m2m100(folder: pathlib.Path) -> pathlib.Path:
  """An M2M-100 model with the vocabulary and SentencePiece file of its own tokenizer."""
  import ctranslate2
  import torch
  import transformers

  folder.mkdir(parents=True, exist_ok=True)
  pieces, vocab = folder / 'sentencepiece.bpe.model', folder / 'vocab.json'
  pieces.write_bytes(_pieces())
  model = sentencepiece.SentencePieceProcessor(model_proto=pieces.read_bytes())
  first = ['<s>', '<pad>', '</s>', '<unk>']
  words = [w for i in range(len(model)) if (w := model.id_to_piece(i)) not in first]
  vocab.write_text(json.dumps({word: i for i, word in enumerate([*first, *words])}))
  tokenizer = transformers.M2M100Tokenizer(str(vocab), str(pieces))
  torch.manual_seed(0)
  made = transformers.M2M100ForConditionalGeneration(
    transformers.M2M100Config(vocab_size=len(first) + len(words) + 108, **_SMALL)
  )
  hf = folder / 'hf'
  made.save_pretrained(str(hf))
  tokenizer.save_pretrained(str(hf))
  out = folder / 'tiny-m2m100'

  class Converter(ctranslate2.converters.TransformersConverter):
    """With transformers 5 it would write 8 made up words, and no languages."""

    def load_tokenizer(self, *args, **kwargs):
      loaded = super().load_tokenizer(*args, **kwargs)
      loaded.num_madeup_words = 108
      return loaded

  Converter(str(hf), copy_files=['sentencepiece.bpe.model']).convert(str(out))
  path = out / 'shared_vocabulary.json'
  tokens = json.loads(path.read_text())
  for token, number in tokenizer.lang_token_to_id.items():
    tokens[number] = token
  path.write_text(json.dumps(tokens))
  return out


def opus(folder: pathlib.Path, languages=()) -> pathlib.Path:
  """A Marian model of OPUS-MT's layout, of one pair or with tokens of target languages."""
  import ctranslate2
  import torch
  import transformers

  folder.mkdir(parents=True, exist_ok=True)
  content = _pieces(user_defined_symbols=list(languages))
  for name in ('source.spm', 'target.spm'):
    (folder / name).write_bytes(content)
  model = sentencepiece.SentencePieceProcessor(model_proto=content)
  words = [model.id_to_piece(i) for i in range(len(model))]
  words = [w for w in words if w not in ('<s>', '</s>', '<unk>')]
  vocab = {word: i for i, word in enumerate(['</s>', '<unk>', *words, '<pad>'])}
  (folder / 'vocab.json').write_text(json.dumps(vocab))
  tokenizer = transformers.MarianTokenizer(
    *(str(folder / name) for name in ('source.spm', 'target.spm', 'vocab.json'))
  )
  torch.manual_seed(0)
  pad = vocab['<pad>']
  made = transformers.MarianMTModel(
    transformers.MarianConfig(
      vocab_size=len(vocab),
      pad_token_id=pad,
      eos_token_id=0,
      decoder_start_token_id=pad,
      forced_eos_token_id=0,
      **_SMALL,
    )
  )
  hf = folder / 'hf'
  made.save_pretrained(str(hf))
  tokenizer.save_pretrained(str(hf))
  out = folder / 'tiny-opus'
  converter = ctranslate2.converters.TransformersConverter(
    str(hf), copy_files=['source.spm', 'target.spm']
  )
  converter.convert(str(out))
  return out
