"""Each gate refuses what it is named after, and lets pass what is like it."""

import dataclasses
import importlib.util
import pathlib

import pytest

from aya_train.translation import quality_gates
from aya_train.translation.quality_gates import Pair, Thresholds

# Not imported to find out: before TensorFlow it ends the process.
pytestmark = pytest.mark.skipif(
  importlib.util.find_spec('gcld3') is None, reason='needs the extra `translate`'
)

SOURCE = 'The committee met on Monday to discuss the new budget for the schools of the city.'
FRENCH = "Le comité s'est réuni lundi pour discuter du nouveau budget des écoles de la ville."
YORUBA = 'Ìgbìmọ̀ náà pàdé ní ọjọ́ Ajé láti jíròrò lórí ètò ìnáwó tuntun fún àwọn ilé ẹ̀kọ́ ìlú náà.'


def failed(source, translation, language='fra', script='Latn', limits=Thresholds()):  # noqa: B008
  pair = Pair(source, translation, 'eng', language, script)
  return {name for name, gate in quality_gates.OF_TEXTS.items() if gate(pair, limits)} | {
    name for name, gate in quality_gates.OF_SENTENCES.items() if gate(pair, limits)
  }


@pytest.mark.parametrize(
  ('source', 'translation', 'reason'),
  [
    (SOURCE, '', 'empty'),
    (SOURCE, '...', 'empty'),
    (SOURCE, f'{FRENCH} <unk>', 'unknown_token'),
    (SOURCE, SOURCE, 'copied'),
    (SOURCE, SOURCE.replace('Monday', 'lundi'), 'untranslated'),
    (SOURCE, 'Oui.', 'length_ratio'),
    (SOURCE, ' '.join([FRENCH] * 5), 'length_ratio'),
    (SOURCE, 'Le comité ' + 'a dit que ' * 9, 'repetition'),
    ('It has 1,250 rooms and 3 doors.', 'Il a 1.250 chambres et 3 portes.', 'lost_numbers'),
    ('It has 3 doors.', 'Il a des portes.', 'lost_numbers'),
    ('Read https://a.b/c now.', 'Lisez https://a.b/ c.', 'lost_protected'),
    ('Say {name} twice.', 'Dites {nom} deux fois.', 'lost_protected'),
    ('Dear [Your Name], see it.', 'Cher votre nom, voyez.', 'lost_protected'),
    (SOURCE, YORUBA, 'wrong_language'),
    (SOURCE, 'Комитет собрался в понедельник, чтобы обсудить новый бюджет.', 'wrong_script'),
  ],
)
def test_what_is_wrong_is_named(source, translation, reason):
  assert reason in failed(source, translation)
  assert reason in quality_gates.REASONS


# A sentence of 3 dogs and 12 cats, https://ex.org, in scripts and languages far from each other.
TOLD = (
  'The 3 dogs of my old neighbor sleep near the river, '
  'and the 12 cats eat at https://ex.org all day.'
)
TRUE = {
  ('khm', 'Khmr'): (
    'ឆ្កែ 3 ក្បាលរបស់អ្នកជិតខាងចាស់របស់ខ្ញុំដេកនៅក្បែរទន្លេ ហើយឆ្មា 12 ក្បាលស៊ីនៅ https://ex.org ពេញមួយថ្ងៃ។'
  ),
  ('tha', 'Thai'): (
    'สุนัข 3 ตัวของเพื่อนบ้านเก่าของฉันนอนใกล้แม่น้ำ และแมว 12 ตัวกินอาหารที่ https://ex.org ทั้งวัน'
  ),
  ('amh', 'Ethi'): 'የድሮ ጎረቤቴ 3 ውሾች በወንዙ አጠገብ ይተኛሉ፣ 12 ድመቶችም በ https://ex.org ቀኑን ሙሉ ይበላሉ።',
  ('ara', 'Arab'): (
    'تنام الكلاب الـ 3 لجاري العجوز قرب النهر، وتأكل القطط الـ 12 في https://ex.org طوال اليوم.'
  ),
  ('zho', 'Hans'): (
    '我老邻居的 3 只狗睡在河边，' + '12 只猫整天在 https://ex.org 吃东西，' + '从早上一直吃到晚上。'
  ),
  ('yor', 'Latn'): (
    'Àwọn ajá 3 ti aládùúgbò mi àtijọ́ ń sùn lẹ́bàá odò, '
    'àwọn ológbò 12 sì ń jẹun ní https://ex.org ní gbogbo ọjọ́.'
  ),
}
WRONG = {
  'empty': lambda text: '...',
  'unknown_token': lambda text: text + ' <unk>',
  'copied': lambda text: TOLD,
  'untranslated': lambda text: TOLD.replace('river', text[:12]),
  'length_ratio': lambda text: text[:8],
  'repetition': lambda text: text[:9] * 20,
  'lost_numbers': lambda text: text.replace('12', '21'),
  'lost_protected': lambda text: text.replace('https://ex.org', 'https://ex.com'),
  'wrong_script': lambda text: 'Собаки моего старого соседа спят у реки, а кошки едят весь день.',
  'wrong_language': lambda text: (
    'Die Hunde meines alten Nachbarn schlafen am Fluss, und Katzen essen.'
  ),
}


@pytest.mark.parametrize(('language', 'script'), TRUE)
def test_each_gate_tells_what_is_wrong_from_what_is_right_in_each_script(language, script):
  text = TRUE[language, script]
  assert failed(TOLD, text, language, script) == set()
  assert {*WRONG} == {*quality_gates.OF_TEXTS, *quality_gates.OF_SENTENCES}
  for reason, made in WRONG.items():
    found = failed(TOLD, made(text), language, script)
    # A language of another script is told by its script.
    assert reason in found or (reason, 'wrong_script') == (
      'wrong_language',
      *found & {'wrong_script'},
    )


@pytest.mark.parametrize(
  ('translation', 'language', 'script'),
  [
    ('生日快乐，Muiriel！', 'zho', 'Hans'),
    ('Penyakit dibawa oleh babi, kemudian berpindah ke manusia lewat nyamuk.', 'ind', 'Latn'),
  ],
)
def test_short_texts_with_names_and_languages_that_are_alike_pass(translation, language, script):
  assert failed('Happy birthday, dear Muiriel!', translation, language, script) <= {'length_ratio'}


@pytest.mark.parametrize(
  ('source', 'translation', 'language', 'script'),
  [
    (SOURCE, FRENCH, 'fra', 'Latn'),
    (SOURCE, YORUBA, 'yor', 'Latn'),
    ('New York', 'New York', 'fra', 'Latn'),
    ('B', 'B', 'fra', 'Latn'),
    ('Good morning to all of you here.', '大家早上好。', 'zho', 'Hans'),
    ('Dear [Your Name], see it.', 'Cher [votre nom], voyez.', 'fra', 'Latn'),
    ('no ' * 8, 'non ' * 8, 'fra', 'Latn'),
    ('See `f(x)` and 12.', 'Voir 12 et `f(x)`.', 'fra', 'Latn'),
  ],
)
def test_what_is_right_passes(source, translation, language, script):
  assert failed(source, translation, language, script) == set()


@pytest.mark.parametrize(
  ('source', 'made', 'lost'),
  [
    ('It is -3 today.', 'Il fait 3 ici.', True),
    ('It is \N{MINUS SIGN}3 today.', 'Il fait -3 ici.', False),
    ('Take ½ of it.', 'Prenez-en.', True),
    ('It is 5 m² big.', 'Il a 5 m.', True),
    ('The covid-19 of 12-15 days.', 'Le covid 19 de 12 à 15 jours.', False),
  ],
)
def test_a_sign_and_a_fraction_belong_to_a_number(source, made, lost):
  for how in ('same', 'value'):
    pair = Pair(source, made, 'eng', 'fra', 'Latn')
    assert quality_gates.lost_numbers(pair, Thresholds(numbers=how)) is lost


def test_numbers_of_another_script_are_the_same_by_value_alone():
  source, made = 'It costs 1,250 today.', 'يكلف ١٬٢٥٠ اليوم.'
  assert 'lost_numbers' in failed(source, made, 'ara', 'Arab')
  assert failed(source, made, 'ara', 'Arab', Thresholds(numbers='value')) == set()


def test_a_table_sets_thresholds_by_language():
  table = {'default': {'max_ratio': 3.0}, 'zho': {'min_ratio': 0.2}}
  made = quality_gates.thresholds_of(table)
  assert (made['zho'].max_ratio, made['zho'].min_ratio) == (3.0, 0.2)
  assert made['default'].min_ratio == Thresholds().min_ratio
  with pytest.raises(ValueError, match=r'\[yor\]: no thresholds .*min_ration'):
    quality_gates.thresholds_of({'yor': {'min_ration': 1}})
  with pytest.raises(ValueError, match='numbers must be'):
    quality_gates.thresholds_of({'yor': {'numbers': 'some'}})


@pytest.mark.parametrize(
  ('inputs', 'targets', 'lost'),
  [
    (('Ada Lovelace wrote it.', 'C’est Ada Lovelace.'), ('Ada Lovelace', 'Ada Lovelace'), False),
    (('It is positive or negative.', 'Positif ou négatif.'), ('positive', 'favorable'), True),
    (('It is positive or negative.', 'Positif ou négatif.'), ('positive.', 'positif'), False),
    (('Disapproval is there.', 'Refus.'), ('approval', 'accord'), False),  # no whole word
    (('Say yes or no.', 'Oui ou non.'), ('no', 'pas'), False),  # short: by chance
    (('首都是北京吗？', '수도는 서울?'), ('首都是北京', '수도는 베이징'), True),
    (('No answer here.', 'Rien.'), ('Paris', 'Paris'), False),
  ],
)
def test_an_answer_that_stood_in_the_input_stands_there_still(inputs, targets, lost):
  assert quality_gates.answer_lost(inputs, targets, Thresholds()) is lost
  assert not quality_gates.answer_lost(inputs, targets, Thresholds(answer_from=0))


@pytest.mark.parametrize(
  ('table', 'said'),
  [
    ({'default': {'min_ration': 1}}, 'no thresholds'),
    ({'yor': {'min_ratio': '1'}}, r'\[yor\]: min_ratio must be a float'),
    ({'yor': {'language': 1}}, 'must be a bool'),
    ({'default': {'loop_from': True}}, 'must be a int'),
    ({'min_ratio': 1}, 'expected a table'),
    ({'klingonese': {}}, 'klingonese'),
  ],
)
def test_thresholds_that_are_none_are_refused(table, said):
  with pytest.raises(ValueError, match=said):
    quality_gates.thresholds_of(table)


def table_of(header):
  """First two columns of a table of the docs."""
  text = (pathlib.Path(__file__).parents[2] / 'docs/translation.md').read_text()
  lines = text[text.index(f'| {header} |') :].split('\n\n')[0].splitlines()[2:]
  return [[cell.strip().strip('`') for cell in line.split('|')[1:3]] for line in lines]


def test_the_documentation_tells_the_reasons_and_thresholds_of_the_code():
  defaults = {
    field.name: str(field.default).replace('True', 'true')
    for field in dataclasses.fields(Thresholds)
  }
  assert dict(table_of('threshold')) == defaults
  assert {name for name, _ in table_of('reason')} == {*quality_gates.REASONS}
