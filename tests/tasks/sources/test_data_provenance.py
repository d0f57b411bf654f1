"""Data Provenance and ShareGPT-Command: message trees, flat records, limits."""

import collections
import json
import pathlib

import pytest
import seqio

import aya_train.tasks  # noqa: F401 - registers the tasks
from aya_train.tasks import catalog, storage
from aya_train.tasks.building import read_report, row_units, source_build
from aya_train.tasks.building.read_report import RowProblemError
from aya_train.tasks.sources import data_provenance, message_trees
from tests.tasks import released

SHARED = pathlib.Path(__file__).parents[4] / 'shared/data'


@pytest.fixture
def root(tmp_path, monkeypatch):
  monkeypatch.setenv(storage.CACHE_ENV, str(tmp_path / 'cache'))
  return tmp_path / 'release'


def build(root, *constituents, source='data_provenance', **kwargs):
  options = row_units.Options(constituents)
  return source_build.build(source, root, options=options, progress=lambda line: None, **kwargs)


def rows_of(task):
  source = seqio.get_mixture_or_task(task).source
  return list(source.get_dataset('train', shuffle=False).as_numpy_iterator())


TREE = [
  {'from': 'user', 'text': 'q', 'parent': 'oasst-ru'},
  {'from': 'assistant', 'text': 'a', 'parent': 0, 'score': 1.0},
  {'from': 'assistant', 'text': 'worse', 'parent': 0, 'score': 0.0},
  {'from': 'user', 'text': 'q2', 'parent': 1},
  {'from': 'assistant', 'text': 'a2', 'parent': 3},
  {'from': 'assistant', 'text': 'a monologue', 'parent': 4},
]


def test_a_pair_for_each_good_answer_to_a_user():
  got = [(p.inputs, p.targets, p.dataset_id, p.message) for p in message_trees.pairs(TREE)]
  assert got == [('q', 'a', 'oasst-ru', 1), ('q2', 'a2', 'oasst-ru', 4)]


@pytest.mark.parametrize(
  'change',
  [
    {'parent': 6},
    {'parent': -1},
    {'parent': 4},
    {'parent': None},
    {'parent': True},
    {'parent': ''},
    {'from': 'system'},
    {'text': None},
    {'score': 'good'},
  ],
)
def test_a_tree_that_is_none_is_refused_whole(change):
  """An earlier pipeline went wrong in the indexes after a reply that was left out."""
  tree = [dict(m) for m in TREE]
  tree[4] |= change
  with pytest.raises(RowProblemError, match='message 4'):
    list(message_trees.pairs(tree))


@pytest.mark.parametrize('tree', [[], 'text', {'from': 'user'}, None, [1]])
def test_other_things_are_no_trees(tree):
  with pytest.raises(RowProblemError, match='bad_tree'):
    list(message_trees.pairs(tree))


def flat(dataset_id, count, targets='labels', parent='user_parent'):
  return [
    {parent: dataset_id, 'inputs': f'{dataset_id} {i}', targets: f'a{i}'} for i in range(count)
  ]


def test_the_three_forms_and_the_places_of_files(root):
  released.jsonl(root / 'data/flan_cot/a.jsonl', flat('fc-cot-cot_gsm8k', 3))
  released.jsonl(
    root / 'data/oig/OIG-processed.jsonl', flat('oig-unified_nq', 2, 'targets', 'dataset')
  )
  released.jsonl(root / 'Open Assistant.jsonl.gz', [TREE, TREE[:2]])
  released.jsonl(root / 'data/coig/COIG-processed.jsonl', flat('coig-x', 30))
  build(root)
  assert len(rows_of('data_provenance.flan_cot')) == 3
  assert len(rows_of('data_provenance.oig')) == 2
  trees = rows_of('data_provenance.open_assistant')
  assert [r['inputs'] for r in trees] == [b'q', b'q2']  # the second tree repeats a pair
  assert {r['language_code'] for r in trees} == {b'rus'}
  assert trees[0]['id'] == b'oasst-ru/1.1'


def test_the_last_tree_is_there(root):
  """An earlier pipeline never wrote the last one."""
  trees = [
    [
      {'from': 'user', 'text': f'q{i}', 'parent': 'oasst-en'},
      {'from': 'assistant', 'text': 'a', 'parent': 0},
    ]
    for i in range(5)
  ]
  released.jsonl(root / 'open_assistant/x.jsonl.gz', trees)
  build(root, 'open_assistant')
  assert [r['inputs'] for r in rows_of('data_provenance.open_assistant')] == [
    f'q{i}'.encode() for i in range(5)
  ]


def test_at_most_so_many_rows_of_one_audited_data_set(root, monkeypatch):
  layout = data_provenance.LAYOUTS['data_provenance']
  limited = row_units.Layout(layout.select, layout.to_rows, group_limit=20)
  monkeypatch.setitem(data_provenance.LAYOUTS, 'data_provenance', limited)
  assert layout.group_limit == catalog.ROWS_PER_PROVENANCE_SET == 20_000
  rows = flat('fc-p3-cos_e', 50) + flat('fc-p3-trec', 7) + flat('fc-p3-samsum', 20)
  released.jsonl(root / 'flan_p3/x.jsonl', rows)
  manifest = build(root, 'flan_p3')['flan_p3']
  counts = collections.Counter(r['id'].split(b'/')[0] for r in rows_of('data_provenance.flan_p3'))
  assert counts == {b'fc-p3-cos_e': 20, b'fc-p3-trec': 7, b'fc-p3-samsum': 20}
  assert manifest['splits']['train']['over_limit'] == 30


def test_all_constituents_are_known_by_the_identifiers_of_their_data_sets():
  assert {part for _, part in data_provenance._IDENTIFIERS} == set(catalog.DATA_PROVENANCE)
  assert data_provenance.constituent_of('oasst-en-octopack') == 'octopack_oa'
  assert data_provenance.constituent_of('oasst-en') == 'open_assistant'
  assert data_provenance.constituent_of('alpaca') is None


@pytest.mark.skipif(not SHARED.exists(), reason='the summaries are not beside this checkout')
def test_every_audited_data_set_belongs_to_its_collection():
  titles = {title: part for part, title in catalog.DATA_PROVENANCE.items()}
  seen = 0
  for path in (SHARED / 'data_provenance/data_summaries').glob('[!_]*.json'):
    for identifier, record in json.loads(path.read_text()).items():
      if record['Collection'] in titles:
        seen += 1
        assert data_provenance.constituent_of(identifier) == titles[record['Collection']]
  assert seen > 150


def test_code_is_no_language_of_the_101(root):
  released.jsonl(root / 'commitpack_ft/x.jsonl', flat('commitpackft-python', 3))
  build(root, 'commitpack_ft')
  assert {r['language_code'] for r in rows_of('data_provenance.commitpack_ft')} == {b'zxx'}


def test_an_unknown_data_set_is_refused_by_name(root):
  released.jsonl(root / 'x.jsonl', flat('nobodys-set', 30))
  with pytest.raises(read_report.TooManyProblemsError, match='nobodys-set'):
    build(root)


def test_sharegpt_is_read_from_the_users_folder_only(root):
  with pytest.raises(ValueError, match='not released'):
    build(None, source='sharegpt_command')
  rows = [
    {'inputs': 'a', 'targets': 'b', 'language': 'yor', 'script': 'Latn'},
    {'inputs': 'see https://x.org', 'targets': 'b', 'language': 'yor'},
    {'id': '7', 'conversations': [{'from': 'human', 'value': 'q'}, {'from': 'gpt', 'value': 'a'}]},
  ]
  released.jsonl(root / 'x.jsonl', rows)
  manifest = build(root, source='sharegpt_command')['']
  assert manifest['report']['filtered'] == {'prompt with a URL or of over 10,000 characters': 1}
  assert {r['language_code'] for r in rows_of('sharegpt_command')} == {b'yor', b'eng'}


@pytest.mark.skipif(not SHARED.exists(), reason='the conversations are not beside this checkout')
def test_real_conversations_become_rows(root):
  text = (SHARED / 'sharegpt_format/dummy_conversation.json').read_text()
  released.jsonl(root / 'x.jsonl', json.loads(text))
  build(root, source='sharegpt_command', limits=read_report.SkipLimits(rows=0.1))
  assert len(rows_of('sharegpt_command')) > 50


@pytest.mark.skipif(not SHARED.exists(), reason='the trees are not beside this checkout')
def test_real_trees_give_all_their_answers(root):
  trees, answers = [], 0

  def walk(node, parent, messages):
    nonlocal answers
    role = 'user' if node['role'] == 'prompter' else 'assistant'
    answers += role == 'assistant'
    messages.append({'from': role, 'text': node['text'], 'parent': parent})
    index = len(messages) - 1
    for reply in node['replies']:
      walk(reply, index, messages)
    return messages

  for line in (SHARED / 'oasst_en_100/en_100_tree.jsonl').read_text().splitlines():
    trees.append(walk(json.loads(line)['prompt'], 'oasst-en', []))
  assert sum(len(list(message_trees.pairs(tree))) for tree in trees) == answers > 500
  released.jsonl(root / 'open_assistant/x.jsonl.gz', trees)
  build(root, 'open_assistant')
  assert len(rows_of('data_provenance.open_assistant')) > 0.98 * answers


hypothesis = pytest.importorskip('hypothesis', reason='property tests need hypothesis')
st = hypothesis.strategies

values = st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=3)
messages = st.lists(
  st.dictionaries(st.sampled_from(['from', 'text', 'parent', 'score', 'x']), values)
  | st.fixed_dictionaries(
    {
      'from': st.sampled_from(['user', 'assistant']),
      'text': st.text(),
      'parent': st.integers(0, 6) | st.just('oasst-en'),
    }
  ),
  max_size=7,
)


@hypothesis.given(messages)
def test_any_list_is_pairs_or_a_bad_tree(tree):
  try:
    pairs = list(message_trees.pairs(tree))
  except RowProblemError:
    pairs = []  # any other exception fails the test
  for pair in pairs:
    assert tree[pair.message]['text'] == pair.targets
    assert tree[tree[pair.message]['parent']]['text'] == pair.inputs
