import json
import pathlib

import pytest
import seqio

import aya_train.tasks  # noqa: F401
from aya_train.tasks import catalog
from aya_train.tasks.mixtures import aya_mixtures
from aya_train.tasks.rights import licenses, provenance

SHARED = pathlib.Path(__file__).parents[3].parent / 'shared/data/data_provenance'
needs_summaries = pytest.mark.skipif(not SHARED.exists(), reason='no Data Provenance summaries')


@pytest.mark.parametrize(
  ('name', 'use'),
  [
    ('CC BY 4.0', 'commercial'),
    ('cc-by-sa-4.0', 'commercial'),
    ('apache-2.0', 'commercial'),
    ('Unspecified', 'unspecified'),
    ('CC-BY-NC-4.0', 'non-commercial'),
    ('OpenAI', 'non-commercial'),
    ('Microsoft Data Licensing Agreement', 'academic-only'),
    ('Various', 'academic-only'),
  ],
)
def test_licenses_have_the_use_class_of_the_audit(name, use):
  assert licenses.classify(name).use == use


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
  for part in ('sharegpt_command: non-commercial', 'xp3x: non-commercial'):
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


def test_the_safe_slot_is_unspecified_until_a_user_says_more():
  assert provenance.record_of(aya_mixtures.SAFE).rights.use == 'unspecified'
