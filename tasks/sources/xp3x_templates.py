"""Which parts of xP3x Aya-101 was trained on: data sets, splits and templates.

Multilingual templates are those of the Aya model paper (arXiv 2402.07827), Table 14, by name. For
five data sets the names are not at hand, only their numbers (clue 12, tydiqa-goldp 11,
tydiqa-primary 4, xquad 4, xlwic 2); and the English ones (Table 13) are not at hand at all. Of
those every template is kept: the pruned set here is larger than the published one. A file with the
names, one 'DATASET<tab>TEMPLATE' a line, replaces this table (`--xp3x_templates`).
"""

from collections.abc import Mapping

KEPT_TEMPLATES: Mapping[str, frozenset[str]] = {
  'allenai/wmt22_african': frozenset({'text'}),
  'gem/bisect': frozenset({'equimeaning', 'fullmeaning', 'synonymous'}),
  'gem/wiki_lingua': frozenset(
    {'article_summary_en', 'rephrase_en', 'tldr_en', 'xp3longwritearticle'}
  ),
  'gem/xlsum': frozenset(
    {
      'xp3longcontinue',
      'docsummary',
      'goodtitle',
      'prevcontent',
      'tldr',
      'xp3longgenarticle',
      'xp3longimaginearticle',
      'xp3longrest',
    }
  ),
  'helsinki_nlp/tatoeba_mt': frozenset({'translate'}),
  'mlqa': frozenset({'qaanswera', 'xp3longanswers', 'xp3longcontinue', 'creferenceqa'}),
  # The table's 'task_description' and 'paraphrase' are short for these of promptsource.
  'paws_x': frozenset({'task_description_no_label', 'meaning', 'paraphrase_task'}),
  'facebook/flores': frozenset({'command_x_x', 'continuation_x_x', 'question_x_x'}),
}
"""Data set -> templates, both as `plain` gives them; a data set that is not here keeps all."""

# Multilingual data sets that the published table lacks.
DROPPED_WHEN_PRUNED = frozenset({'muennighoff/multi_eurlex'})

# What Aya-101 is evaluated on as unseen tasks, and the other data sets of the same tasks:
# natural language inference, coreference, sentence completion (AYA section 2 and Table 4).
EVALUATION = frozenset(
  {
    'anli',
    'glue/mnli',
    'hellaswag',
    'muennighoff/xstory_cloze',
    'muennighoff/xwinograd',
    'story_cloze',
    'super_glue/cb',
    'super_glue/copa',
    'super_glue/rte',
    'super_glue/wsc.fixed',
    'winogrande',
    'xcopa',
    'xnli',
  }
)

# Data sets without a train split: the splits that are no evaluation of Aya-101.
TRAINED_SPLITS: Mapping[str, frozenset[str]] = {
  'facebook/flores': frozenset({'dev'}),
  'helsinki_nlp/tatoeba_mt': frozenset({'validation', 'test'}),
  'mlqa': frozenset({'validation', 'test'}),
  'xquad': frozenset({'validation'}),
}


_QA = 'question answering'
_TASKS: Mapping[str, str] = {
  f'multiple-choice {_QA}': """
    ai2_arc c3 cos_e cosmos_qa dream openbookqa piqa qasc quail quarel quartz race sciq social_i_qa
    wiki_hop wiqa
  """,
  f'extractive {_QA}': """
    adversarial_qa cmrc2018 drcd duorc mlqa quoref ropes squad_v2 tydiqa_goldp tydiqa_primary xquad
  """,
  f'closed-book {_QA}': 'hotpotqa kilt_tasks trivia_qa web_questions wiki_qa',
  'structure to text': 'common_gen wiki_bio',
  'sentiment': 'amazon_polarity app_reviews imdb rotten_tomatoes yelp_review_full',
  'simplification': 'bisect',
  'summarization': 'cnn_dailymail csl gigaword multi_news samsum wiki_lingua xlsum xsum',
  'topic classification': 'ag_news dbpedia_14 tnews trec',
  'translation': 'flores flores200 multi_eurlex tatoeba_mt wmt22_african',
  'paraphrase identification': 'glue mrpc paws paws_x qqp',
  'word sense disambiguation': 'wic xlwic',
  'program code': """
    apps code_contests code_docstring_corpus codecomplex github_jupyter_text_code_pairs great_code
    mbpp neural_code_search python_state_changes xlcost_text_to_code
  """,
  'several tasks': 'clue super_glue',
}
"""Task -> data sets without their owners: the clusters of xP3's card, and of the audit for xP3x."""

_TASK_OF = {name: task for task, names in _TASKS.items() for name in names.split()}


def task_of(dataset: str) -> str:
  """The task of a data set, 'summarization' for 'GEM/xlsum'; 'other' where no list has it."""
  return _TASK_OF.get(plain(dataset).rsplit('/', 1)[-1], 'other')


def plain(name: str) -> str:
  """'command-x-x' -> 'command_x_x', 'GEM/BiSECT' -> 'gem/bisect'."""
  return name.strip().lower().replace('-', '_').replace(' ', '_')


def is_evaluation(dataset: str, config: str) -> bool:
  """Whether a data set is one that Aya-101 is evaluated on."""
  return plain(dataset) in EVALUATION or f'{plain(dataset)}/{plain(config)}' in EVALUATION


def is_trained(dataset: str, split: str) -> bool:
  """Whether a split is one to train on, by the row's own column and not by the hub's."""
  allowed = TRAINED_SPLITS.get(plain(dataset))
  return split.startswith('train') if allowed is None else split in allowed


def is_kept(dataset: str, template: str, given: frozenset[tuple[str, str]]) -> bool:
  """Whether a template belongs to the pruned set; `given` replaces the published table."""
  name = plain(dataset)
  if given:
    return (name, plain(template)) in given
  if name in DROPPED_WHEN_PRUNED:
    return False
  kept = KEPT_TEMPLATES.get(name)
  return kept is None or plain(template) in kept


def parse(lines: tuple[str, ...]) -> frozenset[tuple[str, str]]:
  """Pairs of data set and template of a user's file.

  Raises:
    ValueError: a line that is not two columns.
  """
  pairs = set()
  for number, line in enumerate(lines, 1):
    if not line.strip() or line.startswith('#'):
      continue
    columns = line.rstrip('\n').split('\t')
    if len(columns) != 2:
      raise ValueError(f'line {number}: expected DATASET<tab>TEMPLATE, got {line!r}')
    pairs.add((plain(columns[0]), plain(columns[1])))
  return frozenset(pairs)
