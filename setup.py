"""Packaging of aya-train; everything else about tools is in pyproject.toml."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
# The one place of the version; CITATION.cff and CHANGELOG.md repeat it, and a test compares them.
INIT = (HERE / 'aya_train' / '__init__.py').read_text(encoding='utf-8')

setuptools.setup(
  name='aya-train',
  version=re.search("__version__ = '(.+)'", INIT)[1],
  description='Fine-tunes mT5 on the Aya instruction data with JAX and exports to Hugging Face.',
  long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license_expression='Apache-2.0',
  python_requires='>=3.11',
  # aya_train/tasks and aya_train/configs are links to tasks/ and gin/ (docs/design.md).
  packages=['aya_train']
  + [f'aya_train.{p}' for p in setuptools.find_packages(str(HERE / 'aya_train'))]
  + ['aya_train.configs'],
  package_data={
    'aya_train': ['py.typed'],
    'aya_train.annotation': ['templates/*'],
    'aya_train.export': ['templates/*'],
    'aya_train.judging': ['protocols/*'],
    'aya_train.report': ['published/*', 'templates/*'],
    'aya_train.tasks.eval': ['prompts/*'],
    'aya_train.tpu': ['templates/*'],
    'aya_train.configs': ['*.gin', '*/*.gin'],
  },
  entry_points={'console_scripts': ['aya-train = aya_train.cli.main:console']},
  install_requires=[
    'absl-py>=2.1,<3',
    'array_record>=0.5,<1',
    'babel==2.18.0',  # the CLDR instruction set is pinned to these tables
    'chex>=0.1.88,<0.2',
    'clu>=0.0.12,<0.1',
    'editdistance>=0.8,<1',
    'etils[epath]>=1.13,<2',  # older ones take a path that is not there for a file
    'flax>=0.12.2,<0.13',  # older ones cannot rematerialise with JAX 0.10
    'gin-config>=0.5,<0.6',
    'grain>=0.2.18,<0.3',
    'importlib_resources>=6,<8',  # TFDS builders need it and do not ask for it
    'isal>=1.7,<2',
    'jax>=0.10,<0.13',
    'jinja2>=3.1.4,<4',
    'matplotlib>=3.8,<4',
    'numpy>=2,<3',
    'optax>=0.2.6,<0.3',
    'orbax-checkpoint>=0.12,<0.13',
    'protobuf>=6.31.1,<8',  # made the messages of tensorflow-metadata, which does not ask for it
    'pyarrow>=19,<27',
    'sentencepiece>=0.2.0,<0.3',
    'pyyaml>=6,<7',
    'seqio>=0.0.20,<0.1',
    'tensorboard>=2.20,<3',
    'tensorflow>=2.20,<3',
    'tensorflow-datasets>=4.9.10,<5',  # the first that can read with protobuf 7
    'tensorflow-text>=2.20,<3',
    'tqdm>=4.66,<5',
  ],
  extras_require={
    # libtpu has wheels for nothing else.
    # SentencePiece from 0.2.3 on is three times as fast, and wants protobuf 7, which Beam does not.
    'tpu': [
      'libtpu>=0.0.40,<0.1; platform_system == "Linux" and platform_machine == "x86_64"',
      'protobuf>=7.36.1,<8',
      'sentencepiece>=0.2.3,<0.3',
    ],
    'gpu': ['jax[cuda12]>=0.10,<0.13', 'protobuf>=7.36.1,<8', 'sentencepiece>=0.2.3,<0.3'],
    # Folders of Hugging Face are written and read with the first, run with the second.
    'hf-files': [
      'huggingface-hub>=1,<3',
      'protobuf>=6.31.1,<8',
      'safetensors>=0.5,<1',
      'tokenizers>=0.22,<1',
    ],
    'hf': ['aya-train[hf-files]', 'torch>=2.7,<3', 'transformers>=5.4,<6'],
    # Adapters, and weights under them in 4 and 8 bits.
    'lora': ['qwix>=0.1.8,<0.2'],
    # The first that read umT5, and that write the decoder's number of layers.
    'quantised': ['ctranslate2>=4.8.3,<5', 'gguf>=0.18,<1'],
    # Metrics of translation, summaries, words and languages.
    'eval': [
      'cld3-py>=3.1,<4',
      'icu4py>=1.2,<2',
      'py3langid>=0.3,<0.5',
      'pymorphy3>=2,<3',
      'pymorphy3-dicts-ru>=2.4,<3',
      'pymorphy3-dicts-uk>=2.4,<3',
      'rouge-score>=0.1.2,<0.2',
      'sacrebleu>=2.4,<3',
    ],
    # Beam wants protobuf 6, sentencepiece from 0.2.2 on wants 7: an environment of its own, without
    # constraints.txt.
    'beam': ['apache-beam>=2.77,<3', 'sentencepiece>=0.2.0,<0.2.2'],
    # Search of vectors, and what reads exported folders of encoders; umT5's from 5.4 on.
    'embed': ['aya-train[hf]', 'faiss-cpu>=1.9,<2', 'sentence-transformers>=5.4,<7'],
    # Of preference: asking a judge; strengths and agreement, and the regression on length.
    'judge': ['evalica>=0.4.2,<0.5', 'openai>=3,<4', 'pandas>=2.2.2,<4', 'statsmodels>=0.15,<0.16'],
    # Translation: engine, tokenizers, splitters of sentences; languages are told by `eval`'s.
    'translate': [
      'cld3-py>=3.1,<4',
      'ctranslate2>=4.8.3,<5',
      'icu4py>=1.2,<2',
      'py3langid>=0.3,<0.5',
      'sacrebleu>=2.4,<3',
      'sentencex>=1.0.30,<2',
      'tokenizers>=0.22,<1',
    ],
    'docs': ['pdoc>=16,<17'],
    'test': [
      'hypothesis>=6.100,<7',
      'import-linter>=2.1,<3',
      'mypy>=1.15,<3',
      'peft>=0.19,<0.22',  # opens the adapters that are exported
      'pdoc>=16,<17',
      'playwright>=1.50,<2',  # drives a Chromium of the machine, if there is one
      'pytest>=8,<10',
      'pytest-xdist>=3.6,<4',
      'ruff>=0.12,<1',
      'sentencepiece>=0.2.3,<0.3',
      'setuptools>=77,<85',  # builds the wheel that a test installs
    ],
    # T5X itself is not on PyPI; this is what the comparison tests need beside a checkout of it.
    't5x': ['cached_property>=1.5,<3', 'fiddle>=0.3,<1', 'tensorboard>=2.20,<3'],
  },
)
