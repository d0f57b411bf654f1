"""Scripts of texts."""

import pytest

from aya_train.tasks.metrics import scripts
from tests.tasks.metrics import sib_texts


@sib_texts.needs_them
@pytest.mark.parametrize('language', sib_texts.languages()[::4])
def test_the_script_of_a_text_is_that_of_its_language(language):
  expected = scripts.alike(language.split('_')[1])
  assert {scripts.main(text) for text in sib_texts.texts(language)} == {
    'Kore' if expected == 'Hang' else expected
  }


def test_texts_without_letters_have_none_and_marks_follow_letters():
  assert scripts.main('123 !?') == scripts.of('5') == scripts.of('\u0301') == ''
  assert scripts.main('ＡＢＣ') == 'Latn'
  assert scripts.counts('aб') == {'Latn': 1, 'Cyrl': 1}
  assert [scripts.is_spaceless(c) for c in 'あ漢ไ한a1'] == [True, True, True, False, False, False]
