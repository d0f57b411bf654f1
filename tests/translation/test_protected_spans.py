"""What is no language in a text is found wherever it stands, and what is language is not."""

import codecs
import re
import time

import pytest

from aya_train.translation import documents, protected_spans

pytest.importorskip('sentencex', reason='needs the extra `translate`')


def words(text):
  return text.split()


URLS = words("""
https://en.wikipedia.org/wiki/Set_(mathematics) http://[::1]:8080/path mailto:jane@ex.org
https://user:pw@ex.org:443/x doi:10.1000/xyz123 https://ex.org/%D8%A7%D9%84 www.example.co.uk/page
""")
FIELDS = [
  *words("""
{name} {0} {} {name!r:>10} {price:,.2f} {0:%Y-%m-%d} {items["key"]} {d['k']} {имя}
{len(items)} {{x}} {{{raw}}} {{#each}} %s %d %c %u %ld %05d %-10s %.3f %1$s %(name)s
%(имя)s %NAME% %{name}s ${HOME}
$NAME $(date) <%=x%> <|im_end|> [MASK] [/INST] __NAME__ :smile: <<x>> #{ruby}
"""),
  *('{{ user.name|title }}', '{first name}', '{x + 1}', '<%= x %>', '{% if x %}'),
  '{n, plural, one {# item of it} other {# items of them}}',
]
FORMULAS = words(r"""
$x^2$ $5x+3=7$ $2n$ \(a+b\) \frac{a}{b} \alpha $$E=mc^2$$ \cite{foo2020} \\ $a_{ij}$ $n$ $f(x)=x^2$
""")
MARKUP = [
  *words('<br/> &nbsp; &#x27; <!DOCTYPE> <b> </b> [^1] <custom-el/> `code` ``a`b``'),
  *('<a href="https://ex.org/x y">', '<!-- some words -->', '``a ` b``'),
]
CODE = [
  *words("""
function_name camelCase foo() obj.method(arg) f(x) np.array os.path.join std::vector<int> list<int>
a->b i++ C++ C# 0xFF main.rs src/main.go ~/.bashrc ../up .gitignore v1.2.3 1e-5 x[i][j] *args
__init__ --max-len=5 package.json /usr/bin/env
"""),
  *('g(x, y)', 'x += 1'),
]
EMOJI = words('👨‍👩‍👧‍👦 ❤️‍🔥 🇰🇪 👍🏽 1️⃣ ☎️')
NAMES = [
  *words(r"""
TensorFlow XMLHttpRequest innerHTML getUser(id) arr[0] matrix[2][3] names[-1] s[::-1] [b] [/url]
[url=https://a.b] == != <info@firma.de> /etc C:\Users\me\x.txt \\server\share\file.txt #FF5733
/ˈwɔːtər/ [ˈwɔːtə] H2O CO₂ Fe2(SO4)3 Nf3 O-O exd5 Ctrl+C Alt+F4 v2.0.0-rc1 NODE_ENV=production
^[a-z]+$ /ab+c/gi A1:B10 =SUM(A1:A10) 978-3-16-148410-0 10.1038/nphys1170 arXiv:1706.03762
192.168.0.1:8080 2001:db8::1 00:1A:2B:3C:4D:5E d41d8cd98f00b204e9800998ecf8427e 2024-05-06T10:30:00Z
mc^2 x_{i} 550e8400-e29b-41d4-a716-446655440000 \alpha_1 \sum_{i=1}^{n} :-) https://ex.org/a_(b)
"""),
  *('pip install numpy==1.2', 'npm run build', '+1 (555) 123-4567', '1. e4 e5 2. Nf3 Nc6'),
  *(
    '{"text": "the quick brown fox jumps"}',
    'C:\\Program Files\\a b\\x.txt',
    '\U0001f3f4\U000e0067\U000e0062\U000e007f',
  ),
]
AROUND = ['Then {} stands here.', '{} is first.', 'The last is {}', 'See ({}), "{}"; or {}!']
# Letters of scripts without spaces end no word, so what is ASCII must end by itself.
SPACELESS = ['変数{}を使う。', 'ຂ້ອຍ{}ແລະ', '请看{}吧。', 'ครั้ง{}ครับ', 'សូម{}មើល']
PROSE = """
It cost $5 and then $10, or 50 % of it (and/or 5 % of that). Dr. Smith's item(s) were $3.50-$4!
We met at 10:30:45; see note [12] or 5 * 3 in km/h. He paid US$20 (US$); she: "no way" - e.g. U.S.A.
Mr. McDonald and Ms. DeShawn met a PhD in Mac OS; the city[3] had 1. Eat well, or not. A b and c.
Run the file: it is 10:30 on 05/06/2024; pay 1,234.56 EUR (or £3) = a lot, 98.6 F. COVID-19 is it.
Is it {one of these many words in braces}? [Your Name] and he/she said i.e. a.m. at Smith & Co.
"""


def garbled(text, language='eng'):
  """A translation in which no letter is as it was, but for marks."""

  def turned(sentence):
    masked = protected_spans.mask(sentence)
    made = ''.join(
      part if re.fullmatch(r'\[\d+\]', part) else codecs.encode(part, 'rot13')
      for part in re.split(r'(\[\d+\])', masked.text)
    )
    return protected_spans.restore(made, masked)

  return documents.join(documents.pieces(text, language), turned)


@pytest.mark.parametrize('pieces', [URLS, FIELDS, FORMULAS, MARKUP, CODE, EMOJI, NAMES])
def test_a_protected_piece_is_whole_wherever_it_stands(pieces):
  for piece in pieces:
    for around in AROUND:
      text = around.replace('{}', piece)
      assert garbled(text).count(piece) == text.count(piece), text


def test_what_is_ascii_ends_where_a_script_without_spaces_goes_on():
  for piece in [*FIELDS, '`code`', '$x^2$', 'camelCase', 'foo()', '&nbsp;']:
    for around in SPACELESS:
      assert piece in garbled(around.replace('{}', piece)), (piece, around)
  assert 'https://ex.org/a，' in garbled('见https://ex.org/a，谢谢')


def test_fields_that_touch_are_one_piece():
  for piece in ('%s%s', '%d%%', '$A$B', '{a}{b}', '{{a}}%s', '$x$$y$'):
    assert protected_spans.mask(f'Use {piece} now').text == 'Use [1] now', piece


def test_prose_is_not_protected():
  for line in PROSE.strip().split('\n'):
    assert protected_spans.find(line) == (), line


@pytest.mark.parametrize(
  'kept',
  [
    '{{\n  user.name\n  | title\n}}',
    '{#\n a long comment\n of words\n#}',
    '<a\n  href="https://ex.org/x"\n  class="some words">',
    '<!-- a\ncomment of words\n-->',
    '$$\na = b\n$$',
    '`some code\nover lines`',
    '```jinja\n{{ a\n | b }}\nsome more words\n```',
    '~~~\nsome words in it\n~~~',
    '````md\n```js\nlet words be\n```\nstill inside\n````',
    'SELECT name, age\nFROM people\nWHERE age > 3\nORDER BY name;',
    '[section]\nkey = "some value of words"\nnumber = 5',
    'jobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout',
    '  File "main.py", line 5, in <module>\n    foo(bar)',
    '\n| `a|b` | {x|y} |\n',
    '\n--- | ---\n',
    'SELECT name FROM users WHERE id = 3',
    'for name in names:\n    print(name)',
    '$ pip install numpy',
    'git push origin main',
    '"first_name": "some words of hers",',
    'name,age,city\nJohn,36,Paris',
    'def f(x):\n    """Some words of it, in a row."""\n    return x + 1',
    'public static void main(String[] args) {\n  System.out.println("x");\n}',
    'std::cout << "Hello there you" << std::endl;',
    '1. e4 e5 2. Nf3 Nc6 3. Bb5 a6',
    '][d] ',
    '\n[d]: https://ex.org/a ',
  ],
)
def test_what_goes_over_lines_stays(kept):
  text = f'Look at [it][d] and words\n{kept}\nthen go home. {{x}}\n\nNew words of it.'
  assert ''.join(p.text for p in documents.pieces(text, 'eng')) == text
  made = garbled(text)
  assert kept in made and 'gura tb ubzr. {x}\n\nArj jbeqf bs vg.' in made


def test_lines_of_prose_are_translated_beside_what_looks_like_code():
  for text in (
    'question: who is it\nanswer: it is him\nquestion: where',
    'FROM the hill we saw it\nand went home',
    'Name | Age\nBob Jones | five',
    'for people in need:\nhe gives, they take, we see',
    'Private schools are better\nthan public ones (as he says)',
    "He said `no' to me\nand `yes' to you",
  ):
    assert len(garbled(text).split('\n')) == len(text.split('\n'))
    words = set(re.findall(r'[a-z]{4,}', text))
    assert not words & set(re.findall(r'[a-z]{4,}', garbled(text))), text


def test_a_row_of_a_table_with_one_bar_is_a_row_beside_its_rule():
  text = 'Name | Age of it\n--- | ---\nBob Jones | five years\n\nOne | two words'
  assert documents.sentences_of(documents.pieces(text, 'eng')) == [
    *('Name', 'Age of it', 'Bob Jones', 'five years', 'One | two words')
  ]


def test_bars_inside_of_fields_make_no_row():
  text = 'Say {{ a|b }} and {{ c|d }} to them.'
  assert documents.sentences_of(documents.pieces(text, 'eng')) == [text]


@pytest.mark.parametrize(
  'text', ['a.' * 9_000, '{' + 'a' * 9_000, '<a b=c ' * 2_000, '{{ a\n' * 2_000]
)
def test_what_nobody_writes_takes_no_time(text):
  began = time.process_time()
  protected_spans.across_lines(text)
  protected_spans.find.__wrapped__(text)
  assert time.process_time() - began < 2.0


LONG = 100_000


@pytest.mark.parametrize(
  'piece',
  [
    ' ',
    '\t',
    '-',
    '`',
    '{',
    '{{a',
    '#',
    '|',
    '7',
    '\u0301',
    '<!--',
    "'",
    'ก',
    '. ',
    '$(',
    '> ',
    'a|',
  ],
)
def test_a_line_of_one_thing_again_and_again_is_cut_at_once_and_stays(piece):
  text = f'Some words of it. {piece * (LONG // len(piece))}\nMore words.'
  began = time.process_time()
  parts = documents.pieces(text, 'eng')
  assert time.process_time() - began < 2.0
  assert ''.join(p.text for p in parts) == text
  assert len(''.join(documents.sentences_of(parts))) < 100


@pytest.mark.parametrize(
  'line', ['1.' + '1' * 60 + 'x', '3.14159265358979323846264338327950288419716939937510, and so on']
)
def test_a_number_with_many_digits_begins_a_line_of_words(line):
  began = time.process_time()
  assert ''.join(p.text for p in documents.pieces(line, 'eng')) == line
  assert time.process_time() - began < 1.0


def test_a_long_text_of_many_pieces_is_cut_in_time_that_grows_with_it():
  text = 'She went (home) to {x} and `y`, or 12 of it. But why? ' * 2
  text = ' '.join(text.replace('home', f'house {i}') for i in range(500))
  began = time.process_time()
  parts = documents.pieces(text, 'eng')
  assert time.process_time() - began < 3.0
  assert ''.join(p.text for p in parts) == text
  assert max(map(len, documents.sentences_of(parts))) <= 1_000
