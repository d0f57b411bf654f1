"""What a command says of an error that reached it: in what words, with which exit code.

A defect is what is left when neither the input, nor the machine, nor the network, nor code of the
user's own explains an error.
"""

import dataclasses
import errno
import os
import pathlib
import re
import time

from aya_train import destinations, hosts, memory_limits, user_code

_LONGEST = 600  # characters of what a library says
# Packages whose errors come from a network, by the first part of the module of their class.
_REMOTE = frozenset(
  ['aiohttp', 'aiobotocore', 'botocore', 'fsspec', 'gcsfs', 'google', 'grpc', 'httpcore', 'httpx']
  + ['huggingface_hub', 'requests', 's3fs', 'socket', 'ssl', 'urllib', 'urllib3']
)
# Words of file systems in compiled code, whose errors are of general classes.
_REMOTE_WORDS = re.compile(
  r'could(?:n.t| not) (?:be resolved|resolve host)|resolve host name|metadata server|CURL error|'
  r'credentials|UNAUTHENTICATED|invalid_grant|name resolution|getaddrinfo',
  re.IGNORECASE,
)
# Readers of files and templates whose errors are no ValueError and no OSError.
_READERS = frozenset(
  [
    '_csv',
    'csv',
    'gzip',
    'jinja2',
    'lzma',
    'msgpack',
    '_pickle',
    'pickle',
    'pyarrow',
    'safetensors',
  ]
  + ['safetensors_rust', 'struct', 'tarfile', 'yaml', 'zipfile', 'zlib']
)
_DAMAGED = ('DecodeError', 'DataLossError')
# What TensorFlow's file systems and readers raise for the state of a machine.
_OF_MACHINE = (
  *('NotFoundError', 'PermissionDeniedError', 'DataLossError', 'UnavailableError', 'AbortedError'),
  *('DeadlineExceededError', 'UnauthenticatedError', 'FailedPreconditionError', 'OutOfRangeError'),
)
_EXTRAS = {
  **dict.fromkeys(('ctranslate2', 'gguf'), 'quantised'),
  **dict.fromkeys(('torch', 'transformers'), 'hf'),
  **dict.fromkeys(('huggingface_hub', 'safetensors', 'tokenizers', 'protobuf'), 'hf-files'),
  'apache_beam': 'beam',
  **dict.fromkeys(('faiss', 'sentence_transformers'), 'embed'),
  'openai': 'judge',
  'libtpu': 'tpu',
  'pdoc': 'docs',
}
_STEP = re.compile(r'/checkpoints/\d+(?!\d)')
_PATH_BEGINS = re.compile(r'^|[\s\'"(=]')
_SECONDS_TO_GO = 2.0
_BACKEND = re.compile(r'Unable to initialize backend|already in use by (?:another )?process')
_UNBOUND = re.compile(
  r'(?:Required bindings for `[^`]+` not provided in config: |'
  r'No values supplied by Gin or caller for arguments: )\[([^\]]*)\]'
)
_CALLED = re.compile(r"(?:Required bindings for `|In call to configurable ')([\w.]+)")
_ON_DEVICE = (
  'fewer rows at a time (NUM_MICROBATCHES, BATCH_SIZE, INFER_EVAL_BATCH_SIZE), shorter '
  "TASK_FEATURE_LENGTHS, REMAT_POLICY = 'full', or more devices (MESH_SHAPE)"
)


@dataclasses.dataclass(frozen=True)
class ErrorReport:
  """What is told, and how the command ends.

  Attributes:
    text: one message.
    code: exit code.
    is_defect: whether nothing outside the program explains it.
  """

  text: str
  code: int = 1
  is_defect: bool = False


def of(error: BaseException) -> ErrorReport:
  """Says what happened, and what to do about it where that is known."""
  if hosts.is_lost(error):
    return ErrorReport(hosts.describe_lost(error), 3)
  if isinstance(error, hosts.JoinError):
    return ErrorReport(_own_words(error), 3)
  if gone := _removed_step(error):
    return ErrorReport(gone)
  return ErrorReport(*_explained(_of_system(error)))


def _removed_step(error: BaseException) -> str:
  """What follows from a step that its run has removed, or is removing, while it was read here."""
  for cause in user_code.chain(error):
    for found in _STEP.finditer(text := str(cause)):
      for start in _PATH_BEGINS.finditer(text, 0, found.start()):
        folder = pathlib.Path(text[start.end() : found.end()])
        if not os.path.isdir(folder.parent):  # of any text, however long
          continue
        steps = sorted(int(p.name) for p in folder.parent.iterdir() if p.name.isdecimal())
        if steps and steps[-1] > int(folder.name) and _goes(folder):
          there = ', '.join(str(step) for step in steps if step != int(folder.name))
          return (
            f'{folder} is not there: a run removes the steps that CHECKPOINT_KEEP does not keep, '
            f'also while another command reads them. There are steps {there}. Give the command '
            'again, with the folder of the run for the newest step'
          )
        break
  return ''


def _goes(folder: pathlib.Path) -> bool:
  """Whether a folder is gone, or about to go: its files are removed one by one."""
  deadline = time.monotonic() + _SECONDS_TO_GO
  while folder.exists():
    if time.monotonic() > deadline:
      return False
    time.sleep(0.05)
  return True


def _of_system(error: BaseException) -> BaseException:
  """The system's own error under copies of it, which gin raises without number and file name."""
  while isinstance(error, OSError) and error.errno is None:
    under = error.__context__
    if not isinstance(under, OSError) or not str(error).startswith(str(under) + '\n'):
      break
    error = under
  return error


def _explained(error: BaseException) -> tuple[str, int, bool]:
  if user_code.raised_here(error) and isinstance(error, ValueError | OSError):
    return _plainly_full(error) or _own_words(error), 1, False
  if told := user_code.told_inside_graph(error):
    return told, 1, False
  own = (_no_scheme, _full_disk, _no_memory, _unbound, _of_user, _no_extra)
  for explain in (*own, _remote, _backend, _file):
    if text := explain(error):
      return text, 1, False
  if isinstance(error, ValueError | OSError):
    return _own_words(error), 1, False
  return _named(error), 1, True


def _no_scheme(error: BaseException) -> str:
  """What etils says of a path that begins as no file system does."""
  scheme = error.args[0] if isinstance(error, KeyError) and error.args else None
  if not isinstance(scheme, str) or not re.fullmatch(r'\w[\w+.-]*://', scheme):
    return ''
  return (
    f"a path begins with '{scheme}', which cannot be read or written here: give one of this "
    "machine, without such a beginning, or of a bucket ('gs://', 's3://')"
  )


def _full_disk(error: BaseException) -> str:
  if not destinations.is_full(error):
    return ''
  where, said = '', _short(error)
  for cause in user_code.chain(error):
    if isinstance(cause, OSError) and cause.filename is not None:
      where, said = f' that {cause.filename} is on', str(cause.strerror)
      break
  return f'the disk{where} is full ({said}): make room, and start the same command again'


def _plainly_full(error: BaseException) -> str:
  """Of a full disk, where the system's words are all there is; '' of anything else."""
  if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
    return ''
  return _full_disk(error) if error.strerror == os.strerror(error.errno) else ''


def _no_memory(error: BaseException) -> str:
  if type(error).__name__ == 'BrokenProcessPool':
    return (
      'a helper process ended without a word, most often because the machine had no memory left: '
      'fewer --num_workers, or a larger machine'
    )
  found = memory_limits.exhausted(error)
  if found is None:
    return ''
  said = _short(error)
  if found.space == memory_limits.HOST:
    return (
      f'this machine has too little memory ({said}): a smaller model or batch, fewer processes '
      'beside this one, or a larger machine'
    )
  if found.on_chip:
    return (
      f'{found}, a memory on the chip ({said}): ACTIVATION_DTYPE = '
      "'bfloat16', shorter "
      "TASK_FEATURE_LENGTHS or ATTENTION_KERNEL = 'plain'; settings that save HBM do not help"
    )
  return f'the devices have too little memory ({said}): {_ON_DEVICE}'


def _unbound(error: BaseException) -> str:
  found, called = _UNBOUND.search(str(error)), _CALLED.search(str(error))
  if found is None:
    return ''
  of = f' of {called[1]}' if called else ''
  return f'the gin files give no value for {found[1]}{of}: bind it in one, or with --gin.NAME=VALUE'


def _of_user(error: BaseException) -> str:
  where = user_code.place(error)
  return f'{_named(error)} (in code that is not of aya-train: {where})' if where else ''


def _no_extra(error: BaseException) -> str:
  if not isinstance(error, ImportError):
    return ''
  package = (error.name or '').partition('.')[0]
  if extra := _EXTRAS.get(package):
    return f"this needs {package}: pip install 'aya-train[{extra}]'"
  return (
    f'the installation is not whole ({_short(error)}): pip install --constraint constraints.txt .'
  )


def _remote(error: BaseException) -> str:
  for cause in user_code.chain(error):
    module = type(cause).__module__
    of_bucket = module.startswith('tensorflow') and '://' in str(cause)
    if module.startswith('google.protobuf'):  # messages, which come from files
      continue
    if module.partition('.')[0] in _REMOTE or of_bucket or _REMOTE_WORDS.search(str(cause)):
      what = 'a path in a bucket' if of_bucket else 'a service or a bucket'
      return (
        f'{what} cannot be reached: {_short(cause)}. Are the name, the network and the '
        'credentials right (for gs://: gcloud auth application-default login)?'
      )
  return ''


def _backend(error: BaseException) -> str:
  if isinstance(error, RuntimeError) and _BACKEND.search(str(error)):
    return (
      f'{_short(error)}. Another process may hold the accelerator; JAX_PLATFORMS=cpu goes without'
    )
  return ''


def _file(error: BaseException) -> str:
  kind, name = type(error).__module__.partition('.')[0], type(error).__name__
  damaged = kind in _READERS or name in _DAMAGED or isinstance(error, EOFError)
  if damaged or (kind == 'tensorflow' and name in _OF_MACHINE):
    return f'a file cannot be read, it is damaged or of another kind: {_named(error)}'
  return ''


_OF_FILES = {
  FileNotFoundError: 'is not there',
  IsADirectoryError: 'is a folder, where a file is expected',
  NotADirectoryError: 'cannot be: a part of the path is a file, where a folder is expected',
  PermissionError: 'may not be read or written by this user',
}


def _own_words(error: BaseException) -> str:
  """The error's message as it is, without the call chain that gin appends to it."""
  if isinstance(error, OSError) and error.errno is not None:
    said = _OF_FILES.get(type(error))
    if said and error.filename is not None and str(error).startswith('[Errno'):
      return f'{error.filename} {said}'
    if error.filename is None and len(error.args) == 2:
      return str(error.strerror)
  return _without_gin(error) or type(error).__name__


def _named(error: BaseException) -> str:
  return f'{type(error).__name__}: {_short(error)}'


def _short(error: BaseException) -> str:
  """What a library says, on one line, without its pages of context."""
  text = _without_gin(error)
  if text.startswith(
    'in user code:'
  ):  # of TensorFlow's AutoGraph; the last line is what was raised
    text = text.splitlines()[-1]
  text = ' '.join(text.partition('\nTraceback (most')[0].split())
  if isinstance(error, KeyError):
    text = text.strip('\'"')
  return text if len(text) <= _LONGEST else f'{text[:_LONGEST]} ... (--debug shows all)'


def _without_gin(error: BaseException) -> str:
  return str(error).split('\n  In call to configurable')[0].strip()
