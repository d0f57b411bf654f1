"""The trained file has mT5's layout and loses no text of any covered language."""

import hashlib
import json

import pytest
import sentencepiece
import seqio

from aya_train.tasks import features
from aya_train.tasks.cldr import cldr_facts, cldr_rows, vocabulary
from aya_train.tasks.metrics import exact_match


@pytest.fixture
def processor(cache):
  return sentencepiece.SentencePieceProcessor(model_file=features.vocabulary_file())


def test_layout_is_that_of_mt5(processor):
  size = processor.get_piece_size()
  assert size == vocabulary.DEFAULT_SIZE
  assert (processor.pad_id(), processor.eos_id(), processor.unk_id()) == (0, 1, 2)
  assert processor.bos_id() == -1
  sentinels = [processor.id_to_piece(i) for i in range(size - 100, size)]
  assert sentinels == [f'<extra_id_{i}>' for i in range(99, -1, -1)]
  assert processor.id_to_piece(size - 1) == '<extra_id_0>'
  assert all(processor.is_byte(3 + i) for i in range(256))
  assert features.VOCABULARY.vocab_size == size
  assert features.VOCABULARY.extra_ids == 0


def test_sentinels_and_digits_are_single_pieces(processor):
  pieces = processor.encode('a <extra_id_7> b 2024', out_type=str)
  assert '<extra_id_7>' in pieces
  assert pieces[-4:] == ['2', '0', '2', '4']


def test_names_in_every_language_survive_without_unk(processor):
  seen = set()
  for language in cldr_facts.COVERED:
    seen.add(language.script_code)
    tables = cldr_facts.names(language).values()
    for name in [name for table in tables for name in list(table.values())[:8]]:
      ids = processor.encode(name)
      assert processor.unk_id() not in ids
      assert exact_match.normalize(processor.decode(ids)) == exact_match.normalize(name)
  assert seen == set(cldr_facts.SCRIPTS)


def test_text_outside_the_training_set_falls_back_to_bytes(processor):
  ids = processor.encode('\N{GRINNING FACE}')
  assert processor.unk_id() not in ids
  assert processor.decode(ids) == '\N{GRINNING FACE}'


def test_tensorflow_and_python_give_the_same_ids(cache, processor):
  names = [list(cldr_facts.names(x)['month'].values())[3] for x in cldr_facts.COVERED]
  for text in [*names, 'a  <extra_id_0>b', '１２3', '\N{GRINNING FACE}', '']:
    ids = processor.encode(text)
    assert features.VOCABULARY.encode(text) == ids
    assert features.VOCABULARY.encode_tf(text).numpy().tolist() == ids
    assert seqio.SentencePieceVocabulary(features.vocabulary_file()).encode(text) == ids


def test_same_texts_same_bytes_and_manifest(tmp_path):
  texts = [row.inputs for row in cldr_rows.rows(['nya'])]
  paths = [tmp_path / 'a.model', tmp_path / 'deeper' / 'b.model']
  manifests = [vocabulary.train_sentencepiece(texts, path, 480) for path in paths]
  assert paths[0].read_bytes() == paths[1].read_bytes()
  assert manifests[0] == manifests[1]
  assert manifests[0]['sha256'] == hashlib.sha256(paths[0].read_bytes()).hexdigest()
  assert json.loads((tmp_path / 'a.model.manifest.json').read_text()) == manifests[0]
  assert not list(tmp_path.glob('*.partial'))


def test_the_default_is_trained_once(cache):
  path = vocabulary.build_default()
  before = (cache / 'vocabularies' / features.DEFAULT_VOCABULARY).stat().st_mtime_ns
  assert vocabulary.build_default() == path == features.vocabulary_file()
  assert (cache / 'vocabularies' / features.DEFAULT_VOCABULARY).stat().st_mtime_ns == before
