import subprocess
import sys


def test_judging_imports_neither_tensorflow_nor_jax():
  code = (
    'import sys, pkgutil, importlib, aya_train.judging as room\n'
    'from aya_train.cli import main\n'
    'for module in pkgutil.iter_modules(room.__path__):\n'
    '  importlib.import_module(f"aya_train.judging.{module.name}")\n'
    'print(sorted({"tensorflow", "jax", "openai", "torch"} & set(sys.modules)))\n'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == '[]'
