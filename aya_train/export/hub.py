"""Uploads a converted folder to the Hugging Face Hub, when somebody asks for it."""

import logging
import re
from typing import Any

from etils import epath

logger = logging.getLogger(__name__)
_REPO = re.compile(r'([\w.-]+/)?[\w.-]+')


def check(repo: str, api: Any = None) -> str:
  """Makes sure that an upload can be begun, before hours go into a conversion.

  Args:
    repo: 'NAME' or 'OWNER/NAME'.
    api: a `huggingface_hub.HfApi`, by default one with the token of `hf auth login` or HF_TOKEN.

  Returns:
    The name of the user whose token it is.

  Raises:
    ValueError: `repo` is no name of a repository, or there is no token.
  """
  import huggingface_hub

  if not _REPO.fullmatch(repo):
    raise ValueError(f'--push takes NAME or OWNER/NAME of a repository on the Hub, got {repo!r}')
  try:
    return str((api or huggingface_hub.HfApi()).whoami()['name'])
  except huggingface_hub.errors.LocalTokenNotFoundError as error:
    raise ValueError(
      'there is no token for the Hub: run `hf auth login`, or set HF_TOKEN in the environment'
    ) from error


def push(folder: epath.PathLike, repo: str, *, private: bool = False, api: Any = None) -> str:
  """Makes the repository if it is not there, and uploads a folder in one commit.

  Files of the repository that the folder lacks stay.

  Args:
    folder: a local folder that `convert` wrote.
    repo: 'NAME' or 'OWNER/NAME'.
    private: make a new repository private; one that exists stays as it is.
    api: as for `check`.

  Returns:
    The page of the repository.

  Raises:
    FileNotFoundError: the folder has no README.md, so it is not a finished conversion.
  """
  import huggingface_hub

  folder = epath.Path(folder)
  if not (folder / 'README.md').exists():
    raise FileNotFoundError(f'{folder} holds no README.md: only finished conversions are uploaded')
  api = api or huggingface_hub.HfApi()
  # None leaves it to the settings of the account or organisation; false would make it public.
  url = api.create_repo(repo, repo_type='model', private=private or None, exist_ok=True)
  api.upload_folder(
    repo_id=url.repo_id,
    repo_type='model',
    folder_path=str(folder),
    commit_message='Upload a model converted by aya-train',
  )
  logger.info('uploaded %s to %s', folder, url)
  return str(url)
