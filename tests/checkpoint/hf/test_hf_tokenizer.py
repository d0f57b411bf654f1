"""The exported tokenizer gives SentencePiece's ids, then eos."""

import itertools
import json
import pathlib
import random
import unicodedata

import pytest

from aya_train.checkpoint.hf import hf_tokenizer, hf_vocabulary
from tests.checkpoint import small_model

pytest.importorskip('tokenizers', reason='needs the extra `hf`')
sentencepiece = pytest.importorskip('sentencepiece')

DATA = pathlib.Path(__file__).parents[4] / 'shared' / 'data'
# Vocabularies of other people, used where they are at hand: multilingual, and T5's English one.
REAL = {
  'afriteva': DATA / 'afriteva_vocab' / 'sentencepiece.bpe.model',
  't5': DATA / 't5_vocab' / 't5_vocab',
}

TEXTS = [
  *small_model.CORPUS,
  '',
  ' ',
  '  leading, trailing and   several  spaces  ',
  'lines\nand\r\n\n\ttabs \u00a0 no-break \u3000 wide\u2028separator',
  'emoji 👩‍👩‍👧‍👦🏽 ❤️ 🇰🇪 and \u200bzero\u200c-\u200dwidth\ufeff',
  '\ufeffbyte order mark, bell \x07 and null \x00',
  'ﷺ ﬁﬂ ①② ㎏ ½ Ｗｉｄｅ ｶﾞｷﾞｸﾞ ﾊﾟ ㅋㅋㅋ ㅎㅏㄴ',
  '龘 𓀀 𐍈 ꙮ ᚠ ⵣ unseen by the vocabulary',
  'مُحَمَّدٌ שָׁלוֹם ฉันกินน้ำ ខ្ញុំ မြန်မာ ਪੰਜਾਬੀ',
  '▁marks▁▁of ▁ spaces',
  'Fill <extra_id_0> and<extra_id_1>, <extra_id_99>.',
  '<extra_id_0> first',
  '<extra_id_0>',
  '<extra_id_100> is no sentinel',
]
FORMS = ['NFC', 'NFD', 'NFKD']


def ids(processor, text):
  return [*processor.encode(text), processor.eos_id()]


def assert_equal_ids(processor, encode, texts):
  different = {
    text: (ids(processor, text), got)
    for text in texts
    if (got := encode(text)) != ids(processor, text)
  }
  assert not different, f'{len(different)} of {len(texts)} texts: {list(different.items())[:3]}'


@pytest.fixture(params=['small', *REAL], scope='module')
def vocabulary(request):
  """(SentencePieceProcessor, function from text to the ids of the exported tokenizer)."""
  path = REAL.get(request.param) or request.getfixturevalue('vocabulary_file')
  if not path.exists():
    pytest.skip(f'{path} is not on this machine')
  tokenizer = hf_tokenizer.build(hf_tokenizer.read_vocabulary(path))
  tokenizer.encode_special_tokens = True  # what split_special_tokens does in transformers
  processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
  return processor, lambda text: tokenizer.encode(text).ids


@pytest.mark.parametrize('form', FORMS)
def test_text_of_any_script(vocabulary, form):
  assert_equal_ids(*vocabulary, [unicodedata.normalize(form, text) for text in TEXTS])


def test_every_letter_with_every_usual_accent(vocabulary):
  accents = '\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030c\u0323\u0327\u0328\u0331'
  rng = random.Random(0)
  letters = 'aeiouyAEIOUsznhkαωι' + 'éèêẹọṣǹÅơ'
  texts = [
    rng.choice(letters) + ''.join(rng.choices(accents, k=rng.randint(1, 3))) for _ in range(4000)
  ]
  assert_equal_ids(*vocabulary, texts)


def test_characters_alone_and_decomposed(vocabulary):
  characters = [chr(c) for c in range(1, 0x30000, 37) if not 0xD800 <= c < 0xE000]
  composed = [chr(c) for c in range(0xA0, 0x30000) if unicodedata.decomposition(chr(c))][::5]
  texts = [f'x{c}y' for c in characters] + [unicodedata.normalize('NFD', c) for c in composed]
  assert_equal_ids(*vocabulary, texts)


@pytest.mark.parametrize('name', ['sib200', 'tatoeba'])
def test_real_text(vocabulary, name):
  files = sorted(path for path in (DATA / name).rglob('*') if path.is_file())
  if not files:
    pytest.skip(f'{DATA / name} is not on this machine')
  lines = [line for path in files for line in path.read_text(errors='replace').split('\n')[1::40]]
  assert_equal_ids(*vocabulary, lines)


@pytest.fixture(scope='module')
def folder(vocabulary_file, tmp_path_factory):
  out = tmp_path_factory.mktemp('tokenizer')
  hf_tokenizer.write(vocabulary_file, out)
  (out / 'config.json').write_text(json.dumps({'model_type': 'mt5'}))
  return out


@pytest.fixture(scope='module')
def tokenizer(folder):
  transformers = pytest.importorskip('transformers', reason='needs the extra `hf`')
  return transformers.AutoTokenizer.from_pretrained(str(folder))


@pytest.fixture(scope='module')
def processor(vocabulary_file):
  return sentencepiece.SentencePieceProcessor(model_file=str(vocabulary_file))


def test_auto_tokenizer_gives_the_same_ids_and_text(tokenizer, processor):
  special = ['</s> in text', 'a<pad>b', '<unk>', 'byte <0x41> piece']
  texts = [*TEXTS, *special]
  assert_equal_ids(processor, lambda text: tokenizer(text).input_ids, texts)
  for text in texts:
    decoded = tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)
    assert decoded == processor.decode(processor.encode(text))


def test_sentinels_are_the_last_ids_and_not_appended_again(tokenizer, processor):
  last = processor.get_piece_size() - 1
  assert len(tokenizer) == last + 1
  assert tokenizer.convert_tokens_to_ids('<extra_id_0>') == last
  assert tokenizer.convert_tokens_to_ids('<extra_id_99>') == last - 99
  assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)


def test_a_batch_is_padded_for_the_model(tokenizer, processor):
  batch = tokenizer(['He brought me coffee', 'He'], padding=True)
  assert set(batch) == {'input_ids', 'attention_mask'}
  short = ids(processor, 'He')
  padding = len(batch.input_ids[0]) - len(short)
  assert padding > 0 and batch.input_ids[1] == short + [0] * padding
  assert batch.attention_mask[1] == [1] * len(short) + [0] * padding


def test_offsets_point_into_the_text(tokenizer):
  text = '  He  brought e\u0323\u0301'
  offsets = tokenizer(text, return_offsets_mapping=True).offset_mapping[:-1]
  assert offsets[0][0] >= 0 and offsets[-1][1] == len(text)
  assert all(start <= end for start, end in offsets)
  assert all(a[0] <= b[0] for a, b in itertools.pairwise(offsets))


def test_the_sentencepiece_file_travels_unchanged(folder, vocabulary_file):
  assert (folder / 'spiece.model').read_bytes() == vocabulary_file.read_bytes()


def test_other_vocabularies_are_refused(vocabulary_file, tmp_path):
  with pytest.raises(FileNotFoundError, match='no SentencePiece model'):
    hf_tokenizer.read_vocabulary(tmp_path / 'nothing')
  model = hf_tokenizer.read_vocabulary(vocabulary_file)
  model.trainer_spec.eos_id = 2
  (tmp_path / 'other').write_bytes(model.SerializeToString())
  with pytest.raises(ValueError, match='padding 0, eos 1'):
    hf_tokenizer.read_vocabulary(tmp_path / 'other')


@pytest.mark.parametrize('name', ['small', 't5'])
def test_a_tokenizer_of_ours_gives_back_the_model_that_it_was_made_of(name, vocabulary_file):
  path = REAL.get(name) or vocabulary_file
  if not path.exists():
    pytest.skip(f'{path} is not on this machine')
  model = hf_tokenizer.read_vocabulary(path)
  content = json.loads(hf_tokenizer.build(model).to_str())
  again = hf_tokenizer.rebuilt(content)
  texts = [*TEXTS, *(piece.piece for piece in model.pieces)]
  processors = [
    sentencepiece.SentencePieceProcessor(model_proto=m.SerializeToString()) for m in (model, again)
  ]
  mine, theirs = ([ids(processor, text) for text in texts] for processor in processors)
  assert mine == theirs
  assert [processors[0].decode(x) for x in mine] == [processors[1].decode(x) for x in mine]


@pytest.mark.parametrize(
  'change',
  [
    lambda c: c['normalizer']['normalizers'].pop(0),
    lambda c: c['model']['vocab'].append(['new', 1.0]),
    lambda c: c.update(pre_tokenizer={'type': 'WhitespaceSplit'}),
    lambda c: c.update(normalizer=None),
    lambda c: c['model'].update(type='BPE', vocab={'a': 1}),
    lambda c: c.pop('model'),
  ],
)
def test_what_is_not_quite_ours_is_not_guessed(vocabulary_file, change):
  content = json.loads(hf_tokenizer.build(hf_tokenizer.read_vocabulary(vocabulary_file)).to_str())
  assert hf_tokenizer.rebuilt(content) is not None
  change(content)
  assert hf_tokenizer.rebuilt(content) is None


def test_a_folder_that_transformers_saved_again_has_its_vocabulary(folder, tokenizer, tmp_path):
  tokenizer.save_pretrained(str(tmp_path))
  assert not (tmp_path / 'spiece.model').exists()
  (tmp_path / 'config.json').write_bytes((folder / 'config.json').read_bytes())
  model = hf_tokenizer.read_vocabulary(folder / 'spiece.model')
  content = hf_vocabulary.own_model(tmp_path, len(model.pieces))
  file = tmp_path / 'again.model'
  file.write_bytes(content)
  again = hf_tokenizer.read_vocabulary(file)
  assert [(p.piece, p.type) for p in again.pieces] == [(p.piece, p.type) for p in model.pieces]
