"""What a path holds: models that other programs alone read are called what they are."""

import pytest

from aya_train.checkpoint import formats

CT2 = ('model.bin', 'config.json')


@pytest.mark.parametrize(
  ('files', 'named', 'message'),
  [
    ((*CT2, 'shared_vocabulary.json'), '', 'is a model of CTranslate2, .*`eval` uses'),
    ((*CT2, 'shared_vocabulary.json'), 'model.bin', 'is a model of CTranslate2'),
    (
      (*CT2, 'embedding.json', 'projection.safetensors'),
      '',
      'is a sentence encoder of CTranslate2',
    ),
    (('m-q8_0.gguf', 'quantised.json'), '', 'is a model of llama.cpp'),
    (('m-q8_0.gguf', 'embedding.json', 'projection.safetensors'), '', 'is a model of llama.cpp'),
    (('m.gguf',), 'm.gguf', 'is a model of llama.cpp'),
    (('model.bin',), '', 'is a pickle of torch'),
  ],
)
def test_models_of_other_programs_are_named(tmp_path, files, named, message):
  for name in files:
    (tmp_path / name).write_text('{}')
  with pytest.raises(ValueError, match=message):
    formats.detect(tmp_path / named)


def test_a_model_of_transformers_beside_one_of_another_program_is_read(tmp_path):
  for name in (*CT2, 'shared_vocabulary.json', 'm.gguf', 'model.safetensors'):
    (tmp_path / name).write_text('{}')
  assert formats.detect(tmp_path).format is formats.Format.HF
