"""Adapter folders of Hugging Face PEFT: adapter_config.json beside adapter_model.safetensors.

Tensors are named base_model.model.<module>.lora_A.weight [rank, in] and lora_B.weight [out, rank]
(src/peft/utils/save_and_load.py of huggingface/peft). Sorts of adapters that are no plain sum of a
product with a kernel are refused by name.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from aya_train.checkpoint import adapters, names, sha256sums
from aya_train.checkpoint.arrays import lazy_arrays, safetensors_file
from aya_train.checkpoint.hf import hf_files
from aya_train.models import lora

CONFIG, WEIGHTS = 'adapter_config.json', 'adapter_model.safetensors'
_PICKLE = 'adapter_model.bin'
_PREFIX = 'base_model.model.'
_KERNELS = {module: name for name, module in lora.MODULES.items()}
# What initialises an adapter and leaves the weights under it as they are.
_PLAIN_STARTS = (True, False, None, 'gaussian', 'orthogonal', 'eva')
# Entries of adapter_config.json that make an adapter of another sort: what each must be.
_MUST_BE: Mapping[str, tuple[Any, ...]] = {
  'use_dora': (False, None),
  'use_qalora': (False, None),
  'use_bdlora': (False, None),
  'bias': ('none', None),
  'lora_bias': (False, None),
  'fan_in_fan_out': (False, None),
  'modules_to_save': (None, []),
  'trainable_token_indices': (None, []),
  'target_parameters': (None, []),
  'layer_replication': (None, []),
  'alora_invocation_tokens': (None, []),
  'arrow_config': (None,),
  'init_lora_weights': _PLAIN_STARTS,
}


def is_there(folder: epath.Path) -> bool:
  """Whether a folder holds an adapter, and no whole model beside it."""
  whole = any((folder / name).exists() for name in (hf_files.WHOLE, hf_files.INDEX))
  return (folder / CONFIG).exists() and not whole


def open_folder(folder: epath.Path) -> adapters.Adapter:
  """Opens a LoRA adapter of T5, mT5, umT5 or Aya; rank-stabilised ones and patterns are known.

  Raises:
    FileNotFoundError: no safetensors, with the way out where there is a pickle.
    ValueError: another sort of adapter, by name; tensors of no kernel of T5, or of another rank
      than the configuration's; or damage.
  """
  sha256sums.check(folder)
  config = hf_files.read_json(folder / CONFIG)
  _check_sort(config, f'{folder}/{CONFIG}')
  path = folder / WEIGHTS
  if not path.exists() and (folder / _PICKLE).exists():
    raise ValueError(
      f'{folder} holds {_PICKLE}, a pickle of torch, which is never loaded since it can run code: '
      'load the adapter with peft and save_pretrained it, which writes safetensors'
    )
  tensors = safetensors_file.open_file(path)
  halves: dict[str, dict[str, lazy_arrays.LazyArray]] = {}
  unknown = []
  kept = {}
  for name, tensor in tensors.items():
    if (parameter := _base_parameter(name)) is not None:
      whole, transposed = parameter
      kept[whole] = lazy_arrays.transpose(tensor) if transposed else tensor
      continue
    module, half = _parsed(name)
    kernel = names.kernel_of_hf(module) if half else None
    if kernel is None or len(tensor.shape) != 2:
      unknown.append(name)
    else:
      halves.setdefault(module, {})[half] = tensor
  lacking = [module for module, found in halves.items() if len(found) != 2]
  if unknown or lacking or not halves:
    raise ValueError(
      f'{path}: {len(unknown)} tensors are no lora_A or lora_B of a kernel of T5 {unknown[:3]}, '
      f'{len(lacking)} kernels have one without the other {lacking[:3]}, of {len(tensors)}: '
      'expected both of each, for modules of ' + ', '.join(_KERNELS.values())
    )
  _check_targets(config, [*halves], str(folder))
  pairs = {}
  for module, found in halves.items():
    a, b = (lazy_arrays.transpose(found[half]) for half in 'AB')
    told = _told(config, 'rank_pattern', module, config['r'])
    if not told == a.shape[1] == b.shape[0]:
      raise ValueError(
        f'{folder}: {CONFIG} says rank {told}, and {module} has lora_A of rank {a.shape[1]} and '
        f'lora_B of rank {b.shape[0]}: the two files are not of one adapter, and alpha / rank '
        'would be another. Copy the folder again from its source'
      )
    scale = _scale(config, module, a.shape[1])
    pairs[str(names.kernel_of_hf(module))] = adapters.Pair(a, b, scale)
  return adapters.Adapter(
    where=str(folder),
    pairs=pairs,
    base_path=str(config.get('base_model_name_or_path') or ''),
    kept=kept,
    rank_stabilised=bool(config.get('use_rslora')),
  )


def _check_sort(config: Mapping[str, Any], where: str) -> None:
  sort = config.get('peft_type')
  if sort != 'LORA':
    raise ValueError(
      f'{where}: peft_type {sort!r} is not read, only LORA: merge it into its base with '
      'merge_and_unload of peft, where that sort can, and save_pretrained the whole'
    )
  wrong = [
    f'{name} {config[name]!r}'
    for name, allowed in _MUST_BE.items()
    if name in config and config[name] not in allowed
  ]
  if wrong:
    raise ValueError(
      f'{where}: {", ".join(wrong)}: only plain and rank-stabilised LoRA are read. Load it with '
      'peft, merge_and_unload it, and save_pretrained the whole model'
    )
  numbers: list[Any] = [config.get('r'), config.get('lora_alpha')]
  if not all(type(n) in (int, float) and math.isfinite(n) and n > 0 for n in numbers):
    raise ValueError(f'{where}: r and lora_alpha must be numbers above 0, got {numbers}')


def _check_targets(config: Mapping[str, Any], modules: Sequence[str], folder: str) -> None:
  """Refuses tensors of modules that the configuration does not name, and the other way round.

  PEFT would begin the ones anew, as if they had not been trained, and leave the others unread.

  Raises:
    ValueError: with both.
  """
  targets = config.get('target_modules')
  if targets in (None, 'all-linear'):
    return
  if isinstance(targets, str):
    unnamed = [m for m in modules if not re.fullmatch(targets, m)]
    empty = []
  else:
    named = {t: [m for m in modules if m == t or m.endswith(f'.{t}')] for t in targets}
    unnamed = [m for m in modules if not any(m in found for found in named.values())]
    # Lists of modules are often those of many networks; only what T5 has can be missing.
    empty = [t for t, found in named.items() if not found and t.split('.')[-1] in lora.MODULES]
    if config.get('exclude_modules'):
      empty = []
  if unnamed or empty:
    raise ValueError(
      f'{folder}: {CONFIG} and {WEIGHTS} are not of one adapter: target_modules {targets} do not '
      f'name {len(unnamed)} modules that have tensors {unnamed[:3]}, and name {len(empty)} that '
      f'have none {empty[:3]}. Copy the folder again from its source'
    )


def _parsed(name: str) -> tuple[str, str]:
  """A tensor's module, and which half it is, '' if none."""
  matched = re.fullmatch(r'(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.\w+)?\.weight', name)
  return (matched[1], matched[2]) if matched else (name, '')


def _base_parameter(name: str) -> tuple[str, bool] | None:
  """The parameter of the base that a tensor is, if any: PEFT stores embeddings and heads too."""
  plain = name.removeprefix(_PREFIX).replace('.base_layer.', '.')
  found = {rule.hf: rule for rule in names.RULES if rule.stack is None}.get(plain)
  return None if found is None else (found.unrolled, found.transposed)


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
  """alpha / rank as PEFT has it."""
  alpha = _told(config, 'alpha_pattern', module, config['lora_alpha'])
  return float(alpha) / (math.sqrt(rank) if config.get('use_rslora') else rank)


def _told(config: Mapping[str, Any], patterns: str, module: str, usual: Any) -> Any:
  """What is said of a module: patterns of single modules first."""
  for pattern, value in (config.get(patterns) or {}).items():
    if re.match(rf'(.*\.)?({pattern})$', module):
      return value
  return usual


# Writing ------------------------------------------------------------------------------------------


def write(
  out: epath.Path, adapter: adapters.Adapter, base: str, depths: Mapping[str, int], dtype: str
) -> lazy_arrays.Arrays:
  """Writes an adapter as a folder that `PeftModel.from_pretrained` loads; `out` must not exist.

  Args:
    out: the folder.
    adapter: opened.
    base: what PEFT is to load the adapter onto: a folder, or an id on the Hub.
    depths: layers of 'encoder' and 'decoder', which say whether a module has one in each.
    dtype: of the tensors.

  Returns:
    What was written, by tensor.

  Raises:
    ValueError: there is nothing to write.
  """
  if not adapter.pairs:
    raise ValueError(f'{adapter.where} holds no adapter matrices')
  out.mkdir()
  modules = {names.hf_of_kernel(kernel): pair for kernel, pair in adapter.pairs.items()}
  tensors = {}
  for module, pair in sorted(modules.items()):
    for half, matrix in (('A', pair.a), ('B', pair.b)):
      name = f'{_PREFIX}{module}.lora_{half}.weight'
      tensors[name] = lazy_arrays.cast(lazy_arrays.transpose(matrix), dtype, name)
  safetensors_file.write(out / WEIGHTS, tensors, np.dtype(tensors[name].dtype), lazy_arrays.rounded)
  content = {**_config(adapter, modules, depths), 'base_model_name_or_path': base}
  (out / CONFIG).write_text(json.dumps(content, indent=2, sort_keys=True) + '\n')
  return tensors


def _config(
  adapter: adapters.Adapter, modules: Mapping[str, adapters.Pair], depths: Mapping[str, int]
) -> dict[str, Any]:
  def alpha(pair: adapters.Pair) -> float | int:
    value = pair.scale * (math.sqrt(pair.rank) if adapter.rank_stabilised else pair.rank)
    return round(value) if abs(value - round(value)) < 1e-6 * value else value

  ranks = {module: pair.rank for module, pair in modules.items()}
  alphas = {module: alpha(pair) for module, pair in modules.items()}
  rank, common = (max(set(x.values()), key=list(x.values()).count) for x in (ranks, alphas))
  escaped = {module: re.escape(module) for module in modules}
  return {
    'peft_type': 'LORA',
    'task_type': 'SEQ_2_SEQ_LM',
    'inference_mode': True,
    'r': rank,
    'lora_alpha': common,
    'lora_dropout': 0.0,
    'use_rslora': adapter.rank_stabilised,
    'bias': 'none',
    'fan_in_fan_out': False,
    'init_lora_weights': True,
    'target_modules': _targets(list(modules), depths),
    'rank_pattern': {escaped[m]: r for m, r in ranks.items() if r != rank},
    'alpha_pattern': {escaped[m]: a for m, a in alphas.items() if a != common},
  }


def _targets(modules: list[str], depths: Mapping[str, int]) -> list[str]:
  """Short names where each layer has the module, else whole ones."""
  every = 2 * depths['decoder'] + depths['encoder']
  expected = {**dict.fromkeys('qkvo', every), 'lm_head': 1}
  counts: dict[str, int] = {}
  for module in modules:
    counts[module.rpartition('.')[2]] = counts.get(module.rpartition('.')[2], 0) + 1
  layers = depths['encoder'] + depths['decoder']
  whole = {name for name, n in counts.items() if n == expected.get(name, layers)}
  return sorted({m.rpartition('.')[2] if m.rpartition('.')[2] in whole else m for m in modules})
