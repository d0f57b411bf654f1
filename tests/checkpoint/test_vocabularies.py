import json

import pytest
import seqio

from aya_train.checkpoint import formats, reading, vocabularies
from aya_train.checkpoint.hf import hf_tokenizer
from aya_train.data import fingerprints


def test_the_fingerprint_of_a_file_is_that_of_its_vocabulary(vocabulary_file):
  vocabulary = seqio.SentencePieceVocabulary(str(vocabulary_file), extra_ids=0)
  assert vocabularies.fingerprint(vocabulary_file) == fingerprints.of_vocabulary(vocabulary)


def test_a_hugging_face_folder_has_the_pieces_of_the_file_it_was_made_of(vocabulary_file, tmp_path):
  pytest.importorskip('tokenizers', reason='needs the extra `hf`')
  hf_tokenizer.write(vocabulary_file, tmp_path)
  want = vocabularies.pieces(vocabulary_file)
  assert vocabularies.pieces(vocabularies.of_hf(tmp_path).file) == want
  (tmp_path / hf_tokenizer.MODEL_FILE).unlink()
  assert vocabularies.of_hf(tmp_path).file.endswith('tokenizer.json')
  assert vocabularies.pieces(vocabularies.of_hf(tmp_path).file)[: len(want)] == want


def test_what_counts_as_another_vocabulary():
  pieces = [f'p{i}' for i in range(1000)]
  assert vocabularies.difference(pieces, [*pieces, 'more']) == ''
  assert vocabularies.difference(pieces, [*pieces[:995], *'abcde']) == ''
  shuffled = pieces[::-1]
  assert vocabularies.difference(pieces, shuffled).startswith('1,000 of 1,000 ids mean something')


def test_a_folder_of_other_pieces_is_refused(vocabulary_file, tmp_path):
  pytest.importorskip('tokenizers', reason='needs the extra `hf`')
  hf_tokenizer.write(vocabulary_file, tmp_path)
  (tmp_path / hf_tokenizer.MODEL_FILE).unlink()
  path = tmp_path / 'tokenizer.json'
  content = json.loads(path.read_text())
  source = formats.Detected(formats.epath.Path(tmp_path), formats.Format.HF)
  vocabulary = seqio.SentencePieceVocabulary(str(vocabulary_file), extra_ids=0)
  reading.check_vocabulary(source, vocabulary)
  content['model']['vocab'].reverse()
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=r'belong to another vocabulary .*Bind VOCABULARY_FILE'):
    reading.check_vocabulary(source, vocabulary)
  path.write_text('[]')
  with pytest.raises(ValueError, match='holds no pieces of a vocabulary'):
    reading.check_vocabulary(source, vocabulary)
