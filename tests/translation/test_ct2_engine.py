"""CTranslate2 with models of both architectures: languages, equal answers, what lacks is named."""

import re
import shutil

import pytest

from aya_train.translation import ct2_engine, engine_languages
from tests.translation import tiny_models

pytest.importorskip('ctranslate2', reason='needs the extra `translate`')
pytest.importorskip('torch', reason='needs the extra `hf`')
transformers = pytest.importorskip('transformers', reason='needs the extra `hf`')

pytestmark = pytest.mark.heavy

SENTENCES = ['The quick brown fox.', 'Where is the station?', 'It is [1] km away; take [2].']


@pytest.fixture(scope='module')
def nllb(tmp_path_factory):
  return tiny_models.nllb(tmp_path_factory.mktemp('nllb'))


@pytest.fixture(scope='module')
def madlad(tmp_path_factory):
  return tiny_models.t5(tmp_path_factory.mktemp('madlad'))


def test_nllb_answers_as_transformers_does(nllb):
  """Source: code, tokens, end; the target's code is forced, and no part of the answer."""
  import torch

  engine = ct2_engine.Ct2Engine(nllb, beam_size=1, device='cpu', max_output_tokens=12)
  source, (target,) = engine.spoken('eng'), engine.languages(['yor'])
  assert (source.token, target.token) == ('eng_Latn', 'yor_Latn')
  hf = str(nllb.parent / 'hf')
  tokenizer = transformers.AutoTokenizer.from_pretrained(hf, src_lang='eng_Latn')
  model = transformers.M2M100ForConditionalGeneration.from_pretrained(hf).eval()
  for sentence in SENTENCES:
    ids = tokenizer(sentence, return_tensors='pt')
    with torch.no_grad():
      out = model.generate(
        **ids,
        num_beams=1,
        do_sample=False,
        max_new_tokens=12,  # the code is one
        forced_bos_token_id=tokenizer.convert_tokens_to_ids('yor_Latn'),
      )
    expected = tokenizer.decode(out[0], skip_special_tokens=True)
    ((made, ended),) = engine.outputs([sentence], source, target)
    assert made.split() == expected.split()
    assert ended == (int(out[0, -1]) == tokenizer.eos_token_id)


def test_the_target_decides_and_the_batch_does_not(nllb):
  engine = ct2_engine.Ct2Engine(nllb, device='cpu', max_output_tokens=2)
  source, (yoruba, thai) = engine.spoken('eng'), engine.languages(['yor', 'tha'])
  assert engine.translate(SENTENCES, source, yoruba) == [None] * 3  # nothing ends in 2 tokens
  engine = ct2_engine.Ct2Engine(nllb, device='cpu', max_output_tokens=12)
  together = engine.outputs(SENTENCES, source, yoruba)
  alone = [engine.outputs([s], source, yoruba)[0] for s in SENTENCES]
  assert together == alone
  assert together != engine.outputs(SENTENCES, source, thai)


def test_a_language_that_the_model_lacks_is_named(nllb):
  engine = ct2_engine.Ct2Engine(nllb, device='cpu')
  with pytest.raises(
    engine_languages.LacksLanguageError, match=r'Hausa \(hau\)(.|\n)*Zulu \(zul\)'
  ):
    engine.languages(['hau', 'yor', 'zul'])


def test_t5_takes_the_target_as_first_token(madlad):
  engine = ct2_engine.Ct2Engine(madlad, device='cpu', max_output_tokens=12)
  assert engine.family == 'madlad'
  source, (yoruba, thai) = engine.spoken('eng'), engine.languages(['yor', 'tha'])
  assert yoruba.token == '<2yo>'
  made = engine.outputs(SENTENCES, source, yoruba)
  assert len(made) == len(SENTENCES)
  assert made != engine.outputs(SENTENCES, source, thai)


def test_a_model_of_our_own_is_told_in_words(madlad):
  engine = ct2_engine.Ct2Engine(
    madlad, device='cpu', family='prompted', prompt='In {language}: {text}', max_output_tokens=8
  )
  source, (target,) = engine.spoken('eng'), engine.languages(['yor'])
  assert len(engine.translate(SENTENCES, source, target)) == 3
  assert engine.settings()['prompt'] == 'In {language}: {text}'


def generated(hf, sentence, **options):
  """What transformers makes of a sentence, without search."""
  import torch

  tokenizer = transformers.AutoTokenizer.from_pretrained(str(hf))
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(str(hf)).eval()
  if 'target' in options:
    tokenizer.src_lang = 'en'
    options['forced_bos_token_id'] = tokenizer.get_lang_id(options.pop('target'))
  with torch.no_grad():
    out = model.generate(
      **tokenizer(sentence, return_tensors='pt'),
      num_beams=1,
      do_sample=False,
      max_new_tokens=12,
      forced_eos_token_id=None,
      bad_words_ids=None,
      **options,
    )
  return tokenizer.decode(out[0], skip_special_tokens=True)


def test_m2m100_answers_as_transformers_does(tmp_path):
  folder = tiny_models.m2m100(tmp_path)
  engine = ct2_engine.Ct2Engine(folder, beam_size=1, device='cpu', max_output_tokens=12)
  assert engine.family == 'm2m100'
  source, (target,) = engine.spoken('eng'), engine.languages(['yor'])
  assert (source.token, target.token) == ('__en__', '__yo__')
  for sentence in SENTENCES:
    expected = generated(tmp_path / 'hf', sentence, target='yo')
    ((made, _),) = engine.outputs([sentence], source, target)
    assert written(made) == written(expected)


def written(text):
  """Words without what the two show differently: unknown ones, and the code that was forced."""
  return re.sub(r'<unk>|madeupword\d+|^\s*__yo__', '', text).split()


@pytest.mark.parametrize('languages', [(), ('>>fra<<', '>>yor<<')])
def test_opus_answers_as_transformers_does(languages, tmp_path):
  folder = tiny_models.opus(tmp_path, languages)
  engine = ct2_engine.Ct2Engine(folder, beam_size=1, device='cpu', max_output_tokens=12)
  assert engine.family == 'opus'
  source, (target,) = engine.spoken('eng'), engine.languages(['yor'])
  assert target.token == ('>>yor<<' if languages else '')
  for sentence in SENTENCES:
    asked = f'>>yor<< {sentence}' if languages else sentence
    expected = generated(tmp_path / 'hf', asked)
    ((made, _),) = engine.outputs([sentence], source, target)
    assert made.replace('<unk>', '').split() == expected.split()


def test_a_model_that_must_be_told_in_words_is_not_taken_for_one_of_a_pair(tmp_path):
  with pytest.raises(ValueError, match='needs --prompt'):
    ct2_engine.Ct2Engine(tiny_models.t5(tmp_path, ()), device='cpu')


def test_what_the_model_cannot_do_is_told_in_one_sentence(nllb):
  engine = ct2_engine.Ct2Engine(nllb, device='cpu')
  source, (target,) = engine.spoken('eng'), engine.languages(['yor'])
  with pytest.raises(ValueError, match='smaller --max_output_tokens'):
    engine.translate(SENTENCES, source, target)


def test_a_folder_without_a_model_or_its_tokenizer_is_refused(nllb, tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no model\.bin'):
    ct2_engine.Ct2Engine(tmp_path)
  (tmp_path / 'model.bin').write_bytes((nllb / 'model.bin').read_bytes())
  (tmp_path / 'shared_vocabulary.json').write_bytes((nllb / 'shared_vocabulary.json').read_bytes())
  with pytest.raises(FileNotFoundError, match='no tokenizer'):
    ct2_engine.Ct2Engine(tmp_path)


@pytest.mark.parametrize(
  ('file', 'said'),
  [('tokenizer.json', 'is no tokenizer'), ('model.bin', 'cannot load the model')],
)
def test_a_damaged_file_of_a_model_is_named(nllb, tmp_path, file, said):
  folder = tmp_path / 'nllb'
  shutil.copytree(nllb, folder)
  whole = (folder / file).read_bytes()
  (folder / file).write_bytes(whole[: len(whole) // 2])
  with pytest.raises(ValueError, match=said) as raised:
    ct2_engine.Ct2Engine(folder)
  assert str(folder) in str(raised.value)
