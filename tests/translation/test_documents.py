"""Texts are cut and put together again: real ones in many scripts, and hard ones."""

import json

import pytest

from aya_train.translation import documents, protected_spans, sentences
from tests.judging import shared_data

pytest.importorskip('sentencex', reason='needs the extra `translate`')

HARD = """# The *title* of 3.5 things

Dr. Smith went to `x = 1` and [the docs](https://a.b/c_(d)?q=1). He paid $3.50! 👍🏽
- Item **one**. Item two.
  1. Use {name}, %s, %(count)d, ${var} or {{ row.x }}; not $E = mc^2$ nor <b class="k">this</b>.
| Name | Age in years |
|:---|---:|
| Bob Jones | 5 |

```python
def greet(name):
    # Say a word to the person who is there
    return "Hello my dear old friend " + name
```
السعر 1,250.75 ريال (انظر www.example.org/a). كم؟
ខ្ញុំទៅផ្សារ។ គាត់មកផ្ទះ។
ส่วนใหญ่ของประเทศ 12 ครั้ง 🇹🇭
你好。再见！“是。”他说。\u2028यह एक है। दूसरा।\r\n
(B) yes it is
A
\tos.path.join(a)
"""
FIXED = [
  '`x = 1`',
  '](https://a.b/c_(d)?q=1)',
  '{name}',
  '%s',
  '%(count)d',
  '${var}',
  '{{ row.x }}',
  '$E = mc^2$',
  '<b class="k">',
  'www.example.org/a',
  '👍🏽',
  '🇹🇭',
  '|:---|---:|',
  'return "Hello my dear old friend " + name',
  '# Say a word to the person who is there',
  '(B) ',
  '\nA\n',
]


def check(text, language):
  pieces = documents.pieces(text, language)
  assert ''.join(piece.text for piece in pieces) == text
  for sentence in documents.sentences_of(pieces):
    assert sentence == sentence.strip() and sentence
    assert documents.one_line(sentence) == sentence
    masked = protected_spans.mask(sentence)
    assert protected_spans.restore(masked.text, masked) == sentence
    assert ''.join(t for t, _ in protected_spans.fragments(sentence)) == sentence


def shouted(text, language='eng'):
  """A translation that leaves nothing as it was but marks: what remains was protected."""

  def translate(sentence):
    masked = protected_spans.mask(sentence)
    return protected_spans.restore(f'¿{masked.text.upper()}?', masked)

  return documents.join(documents.pieces(text, language), translate)


def test_protected_pieces_survive_what_is_done_to_language():
  check(HARD, 'eng')
  made = shouted(HARD)
  assert [piece for piece in FIXED if piece not in made] == []
  for language in ('THE', 'ITEM', 'BOB JONES', 'AGE IN YEARS', 'YES IT IS', 'HE PAID'):
    assert language in made
  assert len(made.splitlines()) == len(HARD.splitlines())


def texts(value):
  if isinstance(value, str):
    yield value
  elif isinstance(value, dict | list):
    for each in value.values() if isinstance(value, dict) else value:
      yield from texts(each)


@shared_data.needs(shared_data.SHARED)
def test_real_texts_are_put_together_as_they_were():
  shared = shared_data.SHARED
  found = []
  for path in (shared / 'sib200').glob('*/dev.tsv'):
    found += [(line, path.parent.name[:3]) for line in path.read_text().splitlines()[1:4]]
  trees = (shared / 'oasst_en_100/en_100_tree.jsonl').read_text().splitlines()[:15]
  found += [(text, 'eng') for line in trees for text in texts(json.loads(line))]
  for path in (shared / 'natural_instructions').glob('*.json'):
    found += [(t, 'eng') for t in list(texts(json.loads(path.read_text())))[:40]]
  questions = (shared / 'arena_hard_v01/question.jsonl').read_text().splitlines()[:40]
  found += [(text, 'eng') for line in questions for text in texts(json.loads(line))]
  assert len(found) > 400
  for text, language in found:
    check(text, language)


@pytest.mark.parametrize(
  ('text', 'language', 'count'),
  [
    ('Dr. Smith paid $3.50. He left!', 'eng', 2),
    ('你好。再见！', 'zho', 2),
    ('यह एक है। दूसरा।', 'hin', 2),
    ('ሰላም። እንዴት ነህ?', 'amh', 2),
    ('មួយ។ ពីរ។ បី។', 'khm', 3),
    ('မင်္ဂလာပါ။ ဟုတ်တယ်။', 'mya', 2),
    ('كيف؟ جيد.', 'ara', 2),
    ('ส่วนใหญ่ของประเทศ', 'tha', 1),
  ],
)
def test_sentences_end_as_their_script_ends_them(text, language, count):
  found = sentences.split(text, language)
  assert ''.join(found) == text and len(found) == count


@pytest.mark.parametrize('text', ['word ' * 500, 'ก' * 2_000, 'a,' * 900])
def test_no_sentence_is_longer_than_asked(text):
  found = sentences.split(text, 'eng', 300)
  assert ''.join(found) == text
  assert max(map(len, found)) <= 300


def test_a_mark_that_is_lost_or_twice_there_is_not_repaired():
  masked = protected_spans.mask('Use {x} and [1] or `y`.')
  assert masked.text == 'Use [2] and [1] or [3].'
  assert protected_spans.restore('[ 3 ] ou [1] et 【2】.', masked) == '`y` ou [1] et {x}.'
  assert protected_spans.restore('[3] ou [1].', masked) is None
  assert protected_spans.restore('[3] [2] [2] [1].', masked) is None


def test_prose_that_ends_like_code_is_prose():
  text = 'We went to the old town;\nthe weather was fine;\nimport taxes (see above) rose;'
  assert documents.sentences_of(documents.pieces(text, 'eng')) == text.split('\n')


@pytest.mark.parametrize(
  ('text', 'found'),
  [
    ('Question: Who?\nAnswer: Ada\nQuestion: Where?', ['Question', 'Who?', 'Answer', 'Ada']),
    ('- Item: a cat\n- Item: a dog', ['Item', 'a cat', 'Item', 'a dog']),
    ('Note well: this', ['Note well: this']),
    ('Pick: (A) red (B) blue', ['Pick:', 'red', 'blue']),
    ('a) yes b) no way', ['yes', 'no way']),
    ('Is it 1) good 2) bad?', ['Is it', 'good', 'bad?']),
    ('Vitamin B. C is it.', ['Vitamin B. C is it.']),
  ],
)
def test_labels_and_options_are_sentences_by_themselves(text, found):
  parts = documents.pieces(text, 'eng')
  assert ''.join(part.text for part in parts) == text
  assert documents.sentences_of(parts)[: len(found)] == found


def test_a_block_of_code_may_begin_behind_words():
  text = 'Explain this: ```python\nsome words of code\n```\nWhat is it?'
  parts = documents.pieces(text, 'eng')
  assert documents.sentences_of(parts) == ['Explain this: ```python', 'What is it?']
  assert protected_spans.mask('Explain this: ```python').text == 'Explain this: [1]'
