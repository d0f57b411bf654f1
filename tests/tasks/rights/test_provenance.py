import collections
import json
import pathlib
import re

import pytest
import seqio

import aya_train.tasks  # noqa: F401
from aya_train.tasks import catalog
from aya_train.tasks.mixtures import aya_mixtures
from aya_train.tasks.rights import licenses, provenance
from aya_train.tasks.user import dataset_tables, user_data

SHARED = pathlib.Path(__file__).parents[3].parent / 'shared/data/data_provenance'
XP3X = json.loads((pathlib.Path(__file__).parent / 'xp3x_audit.json').read_text('utf-8'))
DOCS = pathlib.Path(__file__).parents[3] / 'docs'
# The issue of the audit: its 467 data sets of xP3x by use class.
COUNTS = {'commercial': 287, 'unspecified': 2, 'non-commercial': 174, 'academic-only': 4}
needs_summaries = pytest.mark.skipif(not SHARED.exists(), reason='no Data Provenance summaries')


# Every name that the summaries at ce6662d have, the other names of the audit's table, and
# identifiers and spellings of the hub, of SPDX and of the licences themselves.
NAMES = {
  'commercial': """
    Academic Free License v3.0; AI2 ImpACT License - Low Risk; All Uses-Attribution; Apache 2.0
    Apache License 2.0; Artistic License 2.0; BigScience OpenRAIL-M; BSD 2-Clause License
    BSD 3-Clause License; C-UDA; CC BY; CC BY 2.0; CC BY 2.5; CC BY 3.0; CC BY 4.0; CC BY SA
    CC BY-ND 4.0; CC BY-SA; CC BY-SA 2.0; CC BY-SA 3.0; CC BY-SA 4.0; CC0; CC0 1.0
    CDLA Permissive 1.0; CDLA Permissive 2.0; CDLA Sharing 1.0; EPL 1.0
    GNU General Public License v2.0; GNU General Public License v3.0; ISC License; LGPL 2.1
    LGPL 3.0; Llama 2; LMSYS-Chat-1M Dataset License; Meta Llama3 Community License; MIT
    MIT License; MPL 2.0; No License; OANC; ODC BY 1.0; OGL 3.0; Open Access; Public Domain
    Skywork Community License
    apache-2.0; Apache License, Version 2.0; http://www.apache.org/licenses/LICENSE-2.0
    mit; The MIT License; https://opensource.org/licenses/MIT; bsd; bsd-3-clause; afl-3.0
    agpl-3.0; gpl-3.0; GPL-3.0-or-later; GPL-2.0-only; lgpl-2.1; lgpl-3.0; mpl-2.0; epl-2.0; isc
    artistic-2.0; unlicense; wtfpl; zlib; odc-by; odbl; pddl; bsl-1.0; eupl-1.2; osl-3.0
    bigscience-openrail-m; bigcode-openrail-m; creativeml-openrail-m; openrail; llama2; llama3
    c-uda; cdla-permissive-2.0; cdla-sharing-1.0; gfdl; Unicode-3.0
    cc0-1.0; https://creativecommons.org/publicdomain/zero/1.0/; cc-by-4.0; cc-by-sa-3.0; CC-BY-1.0
    Creative Commons Attribution 4.0 International License; CC-BY-3.0-US; CC BY-SA 3.0 ES
    Creative Commons Attribution-ShareAlike 3.0 Unported License; cc-by-nd-4.0; CC BY-SA 2.5
    https://creativecommons.org/licenses/by-sa/4.0/
  """,
  'unspecified': 'Unspecified; unknown',
  'non-commercial': """
    Anthropic; CC BY-NC 2.0; CC BY-NC 3.0; CC BY-NC 4.0; CC BY-NC-ND; CC BY-NC-ND 3.0
    CC BY-NC-ND 4.0; CC BY-NC-SA; CC BY-NC-SA 3.0; CC BY-NC-SA 4.0; CSLU Agreement
    Google Cloud Translation API; LDC User Agreement; Non Commercial; OpenAI; Unclear
    cc-by-nc-2.0; cc-by-nc-4.0; cc-by-nc-sa-3.0; CC BY NC SA 3.0; cc_by_nc_sa_3.0; CC-BY-NC-SA-4.0
    CC-BY-NC-SA-3.0-IGO; CC BY-NC-SA 2.0; CC BY-NC-SA 2.5; cc-by-nc-nd-4.0; CC BY-NC-ND 2.5 NL
    Creative Commons Attribution-NonCommercial-ShareAlike 3.0 Unported License
    Creative Commons Attribution Non Commercial 4.0; Attribution-NonCommercial 4.0 International
    https://creativecommons.org/licenses/by-nc-sa/3.0/; http://creativecommons.org/licenses/by-nc/4.0
  """,
  'academic-only': """
    Academic Research Purposes Only; Microsoft Data Licensing Agreement; Request Form; Various
    Custom; other
  """,
}


@pytest.mark.parametrize('use', NAMES)
def test_licenses_have_the_use_class_of_the_audit(use):
  names = [name.strip() for name in re.split(r'[;\n]', NAMES[use]) if name.strip()]
  assert {name: licenses.classify(name).use for name in names} == dict.fromkeys(names, use)


def test_one_license_has_the_same_rights_however_it_is_spelled():
  for spellings in (
    ('CC BY-NC-SA 3.0', 'cc-by-nc-sa-3.0', 'https://creativecommons.org/licenses/by-nc-sa/3.0/'),
    ('CC BY-SA 4.0', 'CC-BY-SA-4.0', 'Attribution-ShareAlike 4.0 International'),
    ('CC BY-NC-ND 4.0', 'Creative Commons Attribution-NonCommercial-NoDerivatives 4.0'),
    ('CC BY-ND 4.0', 'cc-by-nd-4.0', 'https://creativecommons.org/licenses/by-nd/4.0/deed.en'),
    ('Apache License 2.0', 'apache-2.0', 'Apache License, Version 2.0'),
    ('GNU General Public License v3.0', 'GPL-3.0-or-later', 'gpl-3.0'),
  ):
    assert len({licenses.classify(name) for name in spellings}) == 1, spellings
  assert licenses.classify('CC BY-NC-SA 3.0') == licenses.Rights('non-commercial', True, True)


@pytest.mark.parametrize(
  'name',
  [
    'CC BY-SA 4.0 and GFDL',  # two licences, of which one might be missed
    'MIT OR Apache-2.0',
    'CC BY 4.0, research only',
    'CC BY 3.0 or 4.0',
    'Creative Commons',
    'by',
    'no',
  ],
)
def test_what_is_more_or_less_than_a_name_is_not_guessed(name):
  with pytest.raises(licenses.UnknownLicenseError):
    licenses.classify(name)


def test_an_unknown_license_is_refused_by_name():
  for name in ('Beerware', '', '   '):
    with pytest.raises(licenses.UnknownLicenseError, match=f"licence '{name}' is in no table"):
      licenses.classify(name)


def test_unread_custom_terms_are_the_strictest():
  assert licenses.classify('Custom', 'https://example.org/terms').use == 'academic-only'
  paws = licenses.classify('Custom', 'https://github.com/google-research-datasets/paws')
  assert paws.use == 'commercial'


def test_the_strictest_of_several_wins_whatever_their_order():
  names = ['MIT License', 'CC BY-SA 4.0', 'Unspecified', 'CC BY-NC 4.0']
  for some in (names, names[::-1], names[:3], names[:1]):
    found = licenses.strictest(licenses.classify(n) for n in some)
    ranks = [licenses.USES.index(licenses.classify(n).use) for n in some]
    assert licenses.USES.index(found.use) == max(ranks)
  assert licenses.strictest(licenses.classify(n) for n in names).share_alike
  assert licenses.strictest([]).use == 'unspecified'


def test_a_policy_admits_its_class_and_those_before_it():
  for i, policy in enumerate(licenses.USES):
    assert [licenses.admits(policy, use) for use in licenses.USES] == [j <= i for j in range(4)]
  with pytest.raises(ValueError, match='DATA_LICENSE_POLICY must be one of'):
    licenses.admits('anything', 'commercial')


def test_every_source_and_every_license_of_the_table_is_known():
  assert set(catalog.BY_NAME) <= set(provenance.RECORDS)
  for record in provenance.RECORDS.values():
    assert record.rights.use in licenses.USES


def test_the_smoke_mixture_is_commercial():
  provenance.check('cldr_smoke', 'commercial')


def test_the_released_mixture_is_refused_by_default_with_its_offending_parts():
  with pytest.raises(ValueError) as error:
    provenance.check('aya101', 'commercial')
  message = str(error.value)
  for part in ('sharegpt_command: non-commercial', 'xp3x: academic-only'):
    assert part in message
  assert 'aya_collection_translated.wikiqa: academic-only' in message
  assert 'aya_dataset' not in message
  assert "DATA_LICENSE_POLICY = 'academic-only' admits it all" in message
  provenance.check('aya101', 'academic-only')


def test_parts_that_break_a_policy_are_fewer_under_a_looser_one():
  def offending(policy):
    try:
      provenance.check('aya101', policy)
    except ValueError as error:
      return str(error).count('\n  ')
    return 0

  counts = [offending(policy) for policy in licenses.USES]
  assert counts == sorted(counts, reverse=True)
  assert counts[-1] == 0 < counts[0]


def test_a_task_without_a_record_is_unspecified_until_it_is_declared(monkeypatch):
  monkeypatch.setattr(provenance, '_declared', {})
  assert provenance.record_of('mine').rights.use == 'unspecified'
  provenance.declare('mine', 'CC BY-SA 4.0; MIT License', attribution='me')
  assert provenance.record_of('mine').rights == licenses.Rights('commercial', True, True)
  with pytest.raises(licenses.UnknownLicenseError, match='Beerware'):
    provenance.declare('mine', 'Beerware')


@pytest.mark.parametrize('name', ['No License', 'no licence', 'no-license'])
def test_that_there_is_no_license_allows_nobody_but_the_audit_anything(name):
  with pytest.raises(licenses.UnknownLicenseError, match=r'says nothing of what is allowed: name'):
    provenance.declare('mine', f'MIT; {name}')
  mine = dataset_tables.Dataset('mine', {}, license=name)
  assert provenance._of_user(mine).refused == (name,)
  assert licenses.classify('No License').use == 'commercial'


def test_a_data_set_in_a_task_has_its_own_origin_else_the_first():
  task = seqio.TaskRegistry.get('aya_collection_templated')
  first = provenance.origins(task)[0]
  assert provenance.origin_of(task, 'soda') == 'aya_collection_templated.soda'
  assert provenance.origin_of(task, 'no_such_data_set') == first
  assert provenance.origin_of(seqio.TaskRegistry.get('cldr'), 'soda') == 'cldr'


@needs_summaries
def test_summaries_agree_with_the_audits_own_table():
  classes = json.loads((SHARED / 'constants/license_classes.json').read_text())
  custom = json.loads((SHARED / 'constants/custom_license_classes.json').read_text())
  uses = {
    'All': 'commercial',
    'NC': 'non-commercial',
    'Acad': 'academic-only',
    'Unspecified': 'unspecified',
    '?': 'academic-only',
  }
  for name, (use, attribution, share_alike) in classes.items():
    want = licenses.Rights(uses[use], attribution != '0', share_alike != '0')
    assert licenses.classify(name) == want, name
  for url, (use, *_) in custom.items():
    assert licenses.classify('Custom', url).use == uses[use], url


@needs_summaries
def test_summaries_are_read_whole():
  records = provenance.read_summaries(SHARED / 'data_summaries')
  assert records['sharegpt_vicuna'].rights.use == 'non-commercial'
  assert records['fc-flan-samsum'].rights.use == 'non-commercial'
  assert records['fc-p3-wiki_qa'].rights.use == 'academic-only'
  assert records['dolly-openqa'].rights == licenses.Rights('commercial', True, True)
  assert records['oig-unified_soda_dialog'].rights.use == 'non-commercial'
  assert not any(record.refused for record in records.values())
  with pytest.raises(ValueError, match=r'flan_2021: fc-flan-samsum: non-commercial'):
    provenance.check('data_provenance.flan_2021', 'commercial', records)


def test_a_summary_with_an_unknown_license_breaks_every_policy(tmp_path):
  summary = {'oig-x': {'Licenses': [{'License': 'Beerware', 'License URL': ''}], 'Creators': []}}
  (tmp_path / 'OIG.json').write_text(json.dumps(summary))
  records = provenance.read_summaries(tmp_path)
  with pytest.raises(ValueError, match="oig-x: licence 'Beerware' is in no table"):
    provenance.check('data_provenance.oig', 'academic-only', records)
  (tmp_path / 'Bad.json').write_text('[1')
  with pytest.raises(ValueError, match=r'Bad\.json: not a summary'):
    provenance.read_summaries(tmp_path)


@pytest.mark.parametrize(
  'name',
  ['CC BY 4.0 非商用', 'MIT（仅限研究）', 'CC BY-\u041d\u0421 4.0', 'Licença MIT', 'MIT для науки'],
)
def test_a_reservation_in_another_script_is_not_passed_over(name):
  with pytest.raises(licenses.UnknownLicenseError, match='is in no table'):
    licenses.classify(name)


@pytest.mark.parametrize(
  'name', ['ＣＣ ＢＹ ４．０', 'Creative Commons – Attribution 4.0', 'CC BY™ 4.0']
)
def test_other_forms_of_the_same_letters_are_read(name):
  assert licenses.classify(name) == licenses.classify('CC BY 4.0')


@pytest.mark.parametrize(
  ('license', 'use', 'message'),
  [
    ('CC BY-NC 4.0', 'commercial', "'CC BY-NC 4.0' is non-commercial"),
    ('MIT; Academic Research Purposes Only', 'non-commercial', 'Purposes Only.* is academic-only'),
    ('MIT', 'Commercial', "use must be one of .*got 'Commercial'"),
  ],
)
def test_a_use_class_may_not_allow_more_than_a_license_that_says_what_it_allows(
  license, use, message, monkeypatch
):
  monkeypatch.setattr(provenance, '_declared', {})
  with pytest.raises(ValueError, match=f'mine: .*{message}'):
    provenance.declare('mine', license, use=use)
  dataset = dataset_tables.Dataset('mine', {}, license=license, use=use)
  monkeypatch.setattr(user_data, 'find', {'mine': dataset}.get)
  with pytest.raises(ValueError, match=f'data set mine: .*{message}'):
    provenance.record_of('mine')


@pytest.mark.parametrize(
  ('license', 'use'),
  [('Custom', 'commercial'), ('Unspecified', 'commercial'), ('MIT; Custom', 'academic-only')],
)
def test_a_use_class_says_what_a_name_leaves_open_or_forbids_more(license, use, monkeypatch):
  monkeypatch.setattr(provenance, '_declared', {})
  provenance.declare('mine', license, use=use)
  assert provenance.record_of('mine').rights.use == use


def test_all_that_several_summaries_say_of_a_data_set_binds(tmp_path):
  for file, name in (('a', 'MIT'), ('b', 'CC BY-NC 4.0'), ('c', 'Beerware')):
    summary = {'oig-x': {'Licenses': [{'License': name}]}}
    (tmp_path / f'{file}.json').write_text(json.dumps(summary), 'utf-8-sig')
  (record,) = provenance.read_summaries(tmp_path).values()
  assert [name for name, _ in record.licenses] == ['MIT', 'CC BY-NC 4.0', 'Beerware']
  assert record.refused == ('Beerware',)
  (tmp_path / 'c.json').unlink()
  (record,) = provenance.read_summaries(tmp_path).values()
  assert record.rights.use == 'non-commercial'
  (tmp_path / 'a.json').write_text('{"oig-y": {}, "oig-x": {}, "oig-x": {"Licenses": []}}')
  with pytest.raises(ValueError, match=r"a\.json: .*'oig-x' stands twice"):
    provenance.read_summaries(tmp_path)


@pytest.fixture(scope='module')
def audit(tmp_path_factory):
  """The audit's summary of xP3x, as its file has it, read back."""
  folder = tmp_path_factory.mktemp('summaries')
  content = {
    f'xp3x-{row["dataset"]}-{place}'.lower(): {
      'Licenses': [{'License': row['license'], 'License URL': row['url']}],
      'Dataset Filter IDs': [f'{place}/{row["dataset"]}'],
    }
    for row in XP3X['datasets']
    for place in row['folders'].split()
  }
  (folder / 'xP3x.json').write_text(json.dumps(content))
  return provenance.read_summaries(folder)


def test_the_audit_of_xp3x_is_counted_as_it_was_published(audit):
  assert collections.Counter(record.rights.use for record in audit.values()) == COUNTS
  words = '287 are commercial, 2 unspecified, 174 non-commercial and 4 academic-only'
  assert f'of its {len(audit)} audited data sets {words}' in provenance.record_of('xp3x').terms
  assert '287 commercial, 2 unspecified, 174 non-commercial and 4 academic-only' in (
    ' '.join((DOCS / 'mixtures.md').read_text('utf-8').split())
  )


def test_the_record_of_a_collection_is_as_strict_as_its_strictest_part(audit):
  strictest = licenses.strictest(record.rights for record in audit.values())
  assert provenance.record_of('xp3x').rights == strictest
  for name in ('xp3x', 'xp3x_full', 'xp3', 'xp3mt', 'xp3all', 'p3', 'mt0', 'mt0x', 'mt0_p3'):
    for policy in licenses.USES[:-1]:
      with pytest.raises(ValueError, match="DATA_LICENSE_POLICY = 'academic-only' admits it all"):
        provenance.check(name, policy)
    provenance.check(name, 'academic-only')


def test_summaries_are_held_against_xp3x_too(audit):
  with pytest.raises(ValueError) as error:
    provenance.check('xp3x', 'non-commercial', audit)
  assert 'in 1 of 337 parts:' in str(error.value)
  assert 'xp3x: xp3x-c3-zho_hans: academic-only (Custom)' in str(error.value)
  with pytest.raises(ValueError, match=r'in 148 of 337 parts:'):
    provenance.check('mt0x', 'commercial', audit)
  with pytest.raises(ValueError, match='xp3x: xp3x-c3-zho_hans: academic-only'):
    provenance.check('aya101', 'non-commercial', audit)
  provenance.check('xp3x', 'academic-only', audit)


def test_audited_data_sets_of_other_languages_are_not_held_against_a_task(audit):
  provenance.check('xp3x.yor', 'non-commercial', audit)
  with pytest.raises(ValueError) as error:
    provenance.check('xp3x.yor', 'commercial', audit)
  assert 'xp3x-xlsum-yor_latn: non-commercial (CC BY-NC 4.0)' in str(error.value)
  assert 'zho' not in str(error.value)
  # The constituent of Data Provenance is read in every language, code included.
  with pytest.raises(ValueError, match='xp3x-great_code-python: academic-only'):
    provenance.check('data_provenance.xp3x', 'non-commercial', audit)


@pytest.mark.parametrize('policy', licenses.USES)
def test_no_policy_is_said_to_admit_an_unknown_license(policy):
  def record(name, refused=()):
    return provenance.Record('oig-x', ((name, ''),), refused=refused)

  unknown = record('Beerware', ('Beerware',))
  assert unknown.rights.use == 'academic-only'
  with pytest.raises(ValueError) as error:
    provenance.check('data_provenance.oig', policy, {'oig-x': unknown})
  message = str(error.value)
  assert 'No policy admits a licence that is in no table (Beerware)' in message
  assert 'admits it all' not in message
  assert 'DATA_LICENSE_POLICY = ' not in message.split('\n')[-1]
  both = {'oig-x': unknown, 'oig-y': record('Various')}
  with pytest.raises(ValueError) as error:
    provenance.check('data_provenance.oig', policy, both)
  last = str(error.value).split('\n')[-1]
  needs = "the other parts need DATA_LICENSE_POLICY = 'academic-only'"
  assert (needs in last) == (policy != 'academic-only')


def test_the_safe_slot_is_unspecified_until_a_user_says_more():
  assert provenance.record_of(aya_mixtures.SAFE).rights.use == 'unspecified'
