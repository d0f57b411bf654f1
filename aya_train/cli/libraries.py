"""What the libraries write to the terminal, kept from burying our own lines."""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import logging
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

ROOT = pathlib.Path('/')
GOOGLE = '0x1ae0'  # as a vendor on the PCI bus: of TPUs, and of its cloud's disks and network cards
_DISK_OR_NETWORK = ('0x01', '0x02')  # classes on the PCI bus


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
  sys.unraisablehook = _without_closed_loops(sys.unraisablehook)


def _without_closed_loops(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
  """An unraisablehook that is silent about results nobody waits for any more.

  After a failed write TensorStore still ends the others, and tells an event loop that is closed:
  dozens of tracebacks around the one line that says what failed.
  """

  def quieter(unraisable: Any) -> None:
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'):
      hook(unraisable)

  return quieter


def choose_platform() -> None:
  """Keeps libtpu, where it is installed without a TPU, from looking for one.

  It comes with the extra `tpu`, which compiles for TPUs anywhere. JAX would load it in every
  command, and it writes pages of errors before JAX goes on without it. With any sign of a TPU, with
  other accelerators' plugins, and where JAX_PLATFORMS is set, the choice is JAX's.
  """
  if os.environ.get('JAX_PLATFORMS') or 'jax' in sys.modules:
    return
  if importlib.util.find_spec('libtpu') is None or _signs_of_tpu() or _has_plugins():
    return
  os.environ['JAX_PLATFORMS'] = 'cpu'


def _signs_of_tpu() -> bool:
  told = ('JAX_FORCE_TPU_INIT', 'TPU_NAME', 'TPU_WORKER_ID', 'TPU_LIBRARY_PATH')
  if any(name in os.environ for name in told):
    return True
  if any(ROOT.glob('dev/accel*')) or any(ROOT.glob('dev/vfio/[0-9]*')):
    return True
  return any(
    _read(path) == GOOGLE and not _read(path.parent / 'class').startswith(_DISK_OR_NETWORK)
    for path in ROOT.glob('sys/bus/pci/devices/*/vendor')
  )


def _read(path: pathlib.Path) -> str:
  try:
    return path.read_text().strip()
  except OSError:
    return ''


def _has_plugins() -> bool:
  if importlib.util.find_spec('jax_plugins') is not None:
    return True
  return bool(importlib.metadata.entry_points(group='jax_plugins'))


def quiet_tensorflow(verbose: bool) -> None:
  """Has TensorFlow imported without its start-up lines, by whoever imports it first.

  That takes seconds and most of a gigabyte, so nothing here imports it. Triton, which comes with
  CUDA builds of torch, goes first where it is installed: imported after TensorFlow it ends the
  process (both bring an LLVM), and transformers imports it. Where TensorFlow is there already, as
  in a notebook that calls `main`, it is left alone.
  """
  sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Tensorflow)]
  sys.meta_path.insert(0, _Tensorflow(verbose))


class _Tensorflow(importlib.abc.MetaPathFinder):
  """Finds TensorFlow as Python does, and gives it another loader."""

  def __init__(self, verbose: bool):
    self._verbose = verbose

  def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
    if name not in ('tensorflow', 'tensorflow_text'):
      return None
    spec = importlib.machinery.PathFinder.find_spec(name, path)
    if spec is not None and spec.loader is not None:
      spec.loader = _TensorflowLoader(spec.loader, self._verbose)
    return spec


class _TensorflowLoader(importlib.abc.Loader):
  def __init__(self, loader: Any, verbose: bool):
    self._loader, self._verbose = loader, verbose

  def create_module(self, spec: Any) -> Any:
    return self._loader.create_module(spec)

  def exec_module(self, module: Any) -> None:
    module.__spec__.loader = module.__loader__ = self._loader
    with contextlib.nullcontext() if self._verbose else _without_stderr():
      if module.__name__ == 'tensorflow':
        with contextlib.suppress(ImportError):
          importlib.import_module('triton')
      self._loader.exec_module(module)


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
