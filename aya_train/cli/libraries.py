"""What the libraries write to the terminal, kept from burying our own lines."""

import contextlib
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


def quiet(verbose: bool) -> None:
  """Leaves the log to our own lines: TensorFlow and Orbax fill a screen before the first step."""
  logging.basicConfig(format='%(asctime)s %(message)s', datefmt='%H:%M:%S', stream=sys.stderr)
  logging.getLogger('aya_train').setLevel(logging.INFO)
  if verbose:
    logging.getLogger().setLevel(logging.INFO)
    return
  for handler in logging.getLogger().handlers:
    handler.addFilter(lambda record: record.name.startswith('aya_train'))
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('GRPC_VERBOSITY', 'NONE')
  from absl import logging as absl_logging

  absl_logging.set_verbosity(absl_logging.ERROR)


def import_tensorflow(verbose: bool) -> None:
  """Imports TensorFlow without its start-up lines, which takes seconds; before what needs SeqIO.

  Triton, which comes with CUDA builds of torch, goes first where it is installed: imported after
  TensorFlow it ends the process (both bring an LLVM), and transformers imports it.
  """
  with contextlib.nullcontext() if verbose else _without_stderr():
    with contextlib.suppress(ImportError):
      importlib.import_module('triton')
    import tensorflow_text  # noqa: F401


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
  """Drops what compiled code writes to the terminal; it comes back if something fails.

  TensorFlow's start-up lines ignore TF_CPP_MIN_LOG_LEVEL, and bury the one line a user waits for.
  """
  sys.stderr.flush()
  kept = os.dup(2)
  with tempfile.TemporaryFile() as sink:
    os.dup2(sink.fileno(), 2)
    try:
      yield
    except BaseException:
      os.dup2(kept, 2)
      sink.seek(0)
      sys.stderr.write(sink.read().decode(errors='replace'))
      raise
    finally:
      os.dup2(kept, 2)
      os.close(kept)
