"""Uploads, with a stand-in for the Hub: nothing here leaves the machine."""

import pytest

from aya_train.export import hub

huggingface_hub = pytest.importorskip('huggingface_hub', reason='needs the extra `hf`')


class Api:
  """Remembers what huggingface_hub.HfApi would have been asked for."""

  def __init__(self):
    self.calls = []

  def whoami(self):
    return {'name': 'ann'}

  def create_repo(self, repo_id, *, repo_type, private, exist_ok):
    self.calls.append(('create', repo_id, repo_type, private, exist_ok))
    return huggingface_hub.RepoUrl(f'https://huggingface.co/ann/{repo_id.rpartition("/")[2]}')

  def upload_folder(self, *, repo_id, repo_type, folder_path, commit_message):
    self.calls.append(('upload', repo_id, repo_type, folder_path))
    assert commit_message


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'README.md').write_text('# Card')
  return tmp_path


@pytest.mark.parametrize(('private', 'asked'), [(True, True), (False, None)])
def test_the_repository_is_made_before_the_folder_goes_up(folder, private, asked):
  api = Api()
  url = hub.push(folder, 'small-aya', private=private, api=api)
  assert url == 'https://huggingface.co/ann/small-aya'
  assert api.calls == [
    ('create', 'small-aya', 'model', asked, True),
    ('upload', 'ann/small-aya', 'model', str(folder)),
  ]


def test_the_calls_are_those_of_the_real_api():
  """Binds the arguments of `push` to the installed huggingface_hub."""
  import inspect

  real = huggingface_hub.HfApi
  assert {'repo_type', 'private', 'exist_ok'} <= set(inspect.signature(real.create_repo).parameters)
  assert {'repo_id', 'repo_type', 'folder_path', 'commit_message'} <= set(
    inspect.signature(real.upload_folder).parameters
  )


def test_unfinished_folders_stay_here(tmp_path):
  api = Api()
  with pytest.raises(FileNotFoundError, match=r'no README\.md'):
    hub.push(tmp_path, 'small-aya', api=api)
  assert api.calls == []


@pytest.mark.parametrize('repo', ['https://huggingface.co/ann/model', 'a/b/c', '', 'ann/'])
def test_names_that_are_no_repository_are_refused(repo):
  with pytest.raises(ValueError, match='OWNER/NAME'):
    hub.check(repo, Api())


def test_a_missing_token_is_told_before_the_work(monkeypatch, tmp_path):
  def no_token(self):
    raise huggingface_hub.errors.LocalTokenNotFoundError('no token')

  assert hub.check('ann/model', Api()) == 'ann'
  monkeypatch.setattr(huggingface_hub.HfApi, 'whoami', no_token)
  with pytest.raises(ValueError, match='hf auth login'):
    hub.check('ann/model')
