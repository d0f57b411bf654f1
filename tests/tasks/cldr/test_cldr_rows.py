"""Laws of the CLDR instructions: entities stay apart, words are the language's own, bytes fixed."""

import collections
import datetime
import decimal
import pathlib
import pickle
import subprocess
import sys
import unicodedata

import babel
import pytest

from aya_train.tasks.cldr import cldr_facts, cldr_rows, cldr_templates
from aya_train.tasks.languages import aya101

# A change of rows is a new data set: give the builder a new VERSION, then pin the new hash here.
SHA256 = '94dca25be417bc888809955d581b62139a589fdfd4c1476abf738bd15f57604a'
SPLITS = {'train': 61932, 'validation': 3070, 'test': 3079}

NAME_KINDS = {
  'territory_name': 'territories',
  'language_name': 'languages',
  'official_language': 'languages',
  'currency_name': 'currency_names',
  'legal_tender': 'currency_names',
  'city_name': 'time_zones',
  'month_name': 'months',
  'month_neighbour': 'months',
  'weekday_name': 'days',
  'weekday_neighbour': 'days',
}


def own_file(locale):
  """A locale's own tables, read past every cache of Babel and of ours."""
  path = pathlib.Path(babel.__file__).parent / 'locale-data' / f'{locale}.dat'
  return pickle.loads(path.read_bytes())


def texts(tree):
  if isinstance(tree, dict):
    return {text for value in tree.values() for text in texts(value)}
  return {tree.strip()} if isinstance(tree, str) else set()


def test_the_rows_are_the_pinned_ones(rows):
  manifest = cldr_rows.manifest(rows)
  assert (manifest['babel'], manifest['cldr']) == ('2.18.0', '47')
  assert manifest['splits'] == SPLITS
  assert manifest['sha256'] == SHA256


def test_99_languages_with_every_kind_that_their_tables_allow(rows):
  per_language = collections.Counter(row.language_code for row in rows)
  assert set(per_language) | set(cldr_facts.NOT_IN_CLDR) == set(aya101.BY_CODE)
  assert not set(per_language) & set(cldr_facts.NOT_IN_CLDR)
  assert len(per_language) == 99
  assert sum(count >= 200 for count in per_language.values()) >= 95
  assert min(per_language.values()) >= 90
  kinds = {kind: {r.language_code for r in rows if r.kind == kind} for kind in cldr_rows.KINDS}
  assert min(len(found) for found in kinds.values()) >= 30
  for kind in ('month_name', 'weekday_neighbour', 'identify_language', 'identify_script'):
    assert len(kinds[kind]) == 99


def test_caps_hold_for_every_language_and_kind(rows):
  count = collections.Counter((row.language_code, row.kind, row.split) for row in rows)
  for (_, kind, split), n in count.items():
    held_out = max(1, cldr_rows.CAPS[kind] // 10)
    most = cldr_rows.CAPS[kind] - 2 * held_out + cldr_rows.FURTHER.get(kind, 0)
    assert n <= (most if split == 'train' else held_out)


def test_further_rows_are_of_the_training_split_alone_and_mostly_of_one_language(rows, monkeypatch):
  """So the held-out rows do not depend on how much there is to train on."""
  languages = [aya101.by_code(code) for code in ('deu', 'tha', 'hin')]
  monkeypatch.setattr(cldr_rows, 'FURTHER', {})
  first = {row for x in languages for row in cldr_rows.language_rows.__wrapped__(x)}
  monkeypatch.undo()
  ours = {row for row in rows if row.language_code in ('deu', 'tha', 'hin')}
  further = ours - first
  assert first < ours
  assert further == {row for row in ours if row.further}
  assert {row.split for row in further} == {'train'}
  assert {row.kind for row in further} == set(cldr_rows.FURTHER)
  for kind in ('date_format', 'number_format', 'list_format'):
    entities = [entity for row in further if row.kind == kind for entity in row.entities]
    assert len(set(entities)) > 0.9 * len(entities)


def test_an_entity_is_in_one_split_in_all_languages_and_kinds(rows):
  splits = collections.defaultdict(set)
  for row in rows:
    assert row.entities
    for entity in row.entities:
      splits[entity].add(row.split)
  assert {len(found) for found in splits.values()} == {1}
  named = {entity for row in rows if row.kind not in cldr_rows.FURTHER for entity in row.entities}
  count = collections.Counter(next(iter(splits[entity])) for entity in named)
  assert 0.75 < count['train'] / len(named) < 0.85
  assert {'validation', 'test'} <= {s for e, f in splits.items() for s in f if e.endswith('day')}


@pytest.mark.parametrize('kind', ['territory_name', 'language_name', 'city_name', 'currency_name'])
def test_held_out_names_are_not_answers_in_training(rows, kind):
  """Read off the texts, without trusting the rows' own list of entities."""
  said = collections.defaultdict(set)
  for row in rows:
    if row.kind == kind:
      said[row.split].add((row.language_code, row.targets))
  homonyms = (said['validation'] | said['test']) & said['train']
  assert len(homonyms) <= 0.01 * len(said['validation'] | said['test'])


def test_no_instruction_twice_and_nothing_empty(rows):
  assert len({row.inputs for row in rows}) == len(rows)
  for row in rows:
    assert set(row.columns()) == set(cldr_rows.COLUMNS)
    assert all(isinstance(v, str) and v and v == v.strip() for v in row.columns().values())
    assert aya101.by_code(row.language_code).name == row.language
    assert '{' not in row.inputs


def test_names_stand_in_the_locale_s_own_file(rows):
  own = {}
  for row in rows:
    if row.kind in NAME_KINDS and row.language_code != 'eng':
      key = row.language_code, NAME_KINDS[row.kind]
      if key not in own:
        own[key] = texts(own_file(aya101.by_code(row.language_code).cldr)[key[1]])
      assert row.targets in own[key]


def test_english_names_are_answers_in_english_only(rows):
  english = cldr_facts.english_names()
  for row in rows:
    if row.kind in ('territory_name', 'language_name', 'city_name', 'currency_name'):
      category = row.kind.removesuffix('_name')
      named = [name for name in english[category].values() if f' {name}' in row.inputs]
      if row.language_code != 'eng':
        assert row.targets.casefold() not in {name.casefold() for name in named}


def test_date_words_stand_in_the_locale_s_own_file(rows):
  tables, checked = {}, 0
  for row in rows:
    if row.kind == 'date_format':
      if row.language_code not in tables:
        own = own_file(aya101.by_code(row.language_code).cldr)
        words = texts(own['months']) | texts(own['days']) | texts(own['eras'])
        patterns = ' '.join(pattern.pattern for pattern in own['date_formats'].values())
        tables[row.language_code] = sorted(words, key=len, reverse=True), patterns
      words, patterns = tables[row.language_code]
      rest = row.targets
      for word in words:  # Basque hangs its endings on the month: apirila, apirilaren
        rest = rest.replace(word, ' ') if len(word) > 1 else rest
      letters = ''.join(c if unicodedata.category(c)[0] in 'LM' else ' ' for c in rest)
      assert not [word for word in letters.split() if word not in patterns], row
      checked += 1
  assert checked > 3000


def test_text_is_in_the_script_of_the_language():
  for language in cldr_facts.COVERED:
    for table in cldr_facts.names(language).values():
      assert all(cldr_facts.letters_in(name, language.script_code)[0] for name in table.values())


def test_formats_of_known_languages():
  def by(code):
    return aya101.by_code(code)

  date = datetime.date(2024, 2, 12)
  number = decimal.Decimal('1234567.89')
  assert cldr_facts.format_number(by('tel'), number) == '12,34,567.89'
  assert cldr_facts.format_number(by('deu'), number) == '1.234.567,89'
  assert cldr_facts.format_number(by('ben'), number) == '১২,৩৪,৫৬৭.৮৯'
  assert cldr_facts.format_date(by('kur'), date, 'long') == '12ê sibata 2024an'
  assert cldr_facts.format_date(by('jpn'), date, 'full') == '2024年2月12日月曜日'
  assert cldr_facts.format_date(by('pes'), date, 'long') == '۱۲ فوریهٔ ۲۰۲۴'
  assert cldr_facts.format_percent(by('eus'), 45) == '%\xa045'
  assert cldr_facts.format_list(by('swa'), ('1', '2', '3')) == '1, 2 na 3'
  assert cldr_facts.format_unit(by('ces'), 'length-kilometer', 2) == '2 kilometry'
  assert cldr_facts.format_unit(by('ces'), 'length-kilometer', 7) == '7 kilometrů'


def test_inherited_formats_are_refused():
  """Shona has no date patterns of its own; Babel would answer with the root's."""
  assert cldr_facts.date_styles(aya101.by_code('sna')) == ()
  assert not cldr_facts.has_number_format(aya101.by_code('yor'))
  assert cldr_facts.longest_list(aya101.by_code('mlg')) == 0
  assert cldr_facts.format_unit(aya101.by_code('xho'), 'length-kilometer', 7) is None


def test_every_default_numbering_system_has_its_digits():
  for language in cldr_facts.COVERED:
    system = cldr_facts.own_tables(language.cldr).get('default_numbering_system') or 'latn'
    text = cldr_facts.format_number(language, decimal.Decimal(1234567890))
    latin = any(c.isascii() and c.isdigit() for c in text)
    assert latin == (system == 'latn')


def test_reading_own_tables_leaves_babel_whole():
  """Babel's own switch for uninherited tables would poison its cache of merged ones."""
  assert cldr_facts.own_tables('yo').get('number_symbols', {}).get('latn', {}).keys() == {
    'approximatelySign'
  }
  assert babel.Locale('yo').number_symbols['latn']['decimal'] == '.'


def test_identified_texts_belong_to_one_language_only(rows):
  owners = collections.defaultdict(set)
  for language in cldr_facts.COVERED:
    tables = own_file(language.cldr)
    for name in ('territories', 'languages', 'currency_names', 'months', 'days'):
      for text in texts(tables[name]):
        owners[text.casefold()].add(language.name)
  elsewhere = 0
  for row in rows:
    if row.kind == 'identify_language':
      text = next(t for t in reversed(cldr_templates.TEMPLATES[row.kind]) if _fits(t, row.inputs))
      before, after = text.split('{text}')
      shown = row.inputs[len(before) : len(row.inputs) - len(after)]
      assert owners.get(shown.casefold(), {row.targets}) >= {row.targets}
      elsewhere += len(owners.get(shown.casefold(), ())) > 1
  # Short forms of months and names of continents are in this reading, not in the tasks'.
  assert elsewhere < 0.01 * sum(row.kind == 'identify_language' for row in rows)


def _fits(template, inputs):
  before, after = template.split('{text}')
  return inputs.startswith(before) and inputs.endswith(after)


def test_a_smaller_set_is_a_part_of_the_whole(rows):
  chosen = [row for row in rows if row.language_code in ('nya', 'yor')]
  assert cldr_rows.rows(['yor', 'nya']) == chosen


@pytest.mark.parametrize('code', ['hat', 'yo'])
def test_languages_without_tables_are_refused(code):
  with pytest.raises(ValueError, match=code):
    cldr_rows.rows([code])


def test_rows_do_not_depend_on_the_hash_seed():
  # The rows need Babel alone: a bare package spares this process the import of TensorFlow.
  program = (
    'import sys, types; tasks = types.ModuleType("aya_train.tasks"); '
    f'tasks.__path__ = [{str(pathlib.Path(cldr_rows.__file__).parents[1])!r}]; '
    'sys.modules["aya_train.tasks"] = tasks; from aya_train.tasks.cldr import cldr_rows as r; '
    "print(r.manifest(r.rows(['nya', 'yor']))['sha256'])"
  )
  env = {'PYTHONHASHSEED': '7', 'TF_CPP_MIN_LOG_LEVEL': '3', 'LC_ALL': 'C', 'TZ': 'Asia/Tokyo'}
  out = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, check=True, env=env
  )
  here = cldr_rows.manifest(cldr_rows.rows(['nya', 'yor']))
  assert out.stdout.strip() == here['sha256']
