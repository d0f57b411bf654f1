"""The 20 prompts are promptsource's to the letter, and are rendered as promptsource does."""

import pathlib

import pytest

from aya_train.tasks.eval import promptsource_prompts
from aya_train.tasks.user import ranked_prompts, template_language, templates

SHARED = pathlib.Path(__file__).parents[3].parent / 'shared/data'
FILES = {
  'promptsource_templates/super_glue/copa': promptsource_prompts.XCOPA,
  'promptsource_templates/xnli/en': promptsource_prompts.XNLI,
  'promptsource_templates_eval/story_cloze/2016': promptsource_prompts.XSTORY_CLOZE,
  'promptsource_templates_eval/winogrande/winogrande_xl': promptsource_prompts.XWINOGRAD,
}
COPA = {'premise': 'P', 'choice1': 'C1', 'choice2': 'C2', 'question': 'cause', 'label': 1}
NLI = {'premise': 'P.', 'hypothesis': 'H.', 'label': 2}
STORY = {f'input_sentence_{i}': f'S{i}' for i in range(1, 5)} | {
  'sentence_quiz1': 'Q1',
  'sentence_quiz2': 'Q2',
  'answer_right_ending': 1,
}
WINOGRAD = {'sentence': 'A _ b', 'option1': 'O1', 'option2': 'O2', 'answer': '2'}
# Worked out by hand from the templates.
RENDERED = {
  'best_option': (
    COPA,
    "P \n\nWhat's the best option?\n- C1\n- C2\n\nWe are looking for  a cause",
    ['C1', 'C2'],
    1,
  ),
  'C1 or C2? premise, so/because…': (COPA, '"C1" or "C2"? P  because', ['C1', 'C2'], 1),
  'i_am_hesitating': (
    COPA | {'question': 'effect', 'label': 0},
    'P \n\nI am hesitating between two options. Help me choose the more likely  effect: \n- C1\n'
    '- C2',
    ['C1', 'C2'],
    0,
  ),
  'plausible_alternatives': (
    COPA | {'question': 'effect'},
    'P  As a consequence... \nHelp me pick the more plausible option:\n- C1\n- C2',
    ['C1', 'C2'],
    1,
  ),
  'guaranteed/possible/impossible': (
    NLI,
    'Assume it is true that P. \n\nTherefore, "H." is guaranteed, possible, or impossible?',
    ['Guaranteed', 'Possible', 'Impossible'],
    2,
  ),
  'GPT-3 style': (
    NLI | {'label': 1},
    'P.\nQuestion: H. True, False, or Neither?',
    ['True', 'Neither', 'False'],
    1,
  ),
  'can we infer': (
    NLI | {'label': 0},
    'Suppose P. Can we infer that "H."? Yes, no, or maybe?',
    ['Yes', 'Maybe', 'No'],
    0,
  ),
  'Answer Given options': (
    STORY,
    'S1 S2 S3 S4 What is a possible continuation for the story given the following options ? '
    '- Q1\n- Q2',
    ['Q1', 'Q2'],
    0,
  ),
  'Generate Ending': (
    STORY,
    'Generate a possible ending for the following story: S1 S2 S3 S4',
    ['Q1', 'Q2'],
    0,
  ),
  'Replace': (
    WINOGRAD,
    'A _ b\nReplace the _ in the above sentence with the correct option: \n- O1\n- O2',
    ['O1', 'O2'],
    1,
  ),
  'True or False': (
    WINOGRAD | {'answer': '1'},
    'The _ in the sentence below refers to O1. True or False?\nA _ b',
    ['True', 'False'],
    0,
  ),
}


def test_there_are_five_of_each_and_no_others():
  names = [name for chosen in FILES.values() for name in chosen]
  assert len({*names}) == len(names) == 20
  assert {template.name for template in templates.read(promptsource_prompts.FILE)} == {*names}


@pytest.mark.skipif(not SHARED.exists(), reason=f'no promptsource files in {SHARED}')
@pytest.mark.parametrize('file', FILES)
def test_their_text_is_that_of_the_released_files(file):
  released = {t.name: t for t in templates.read(SHARED / file / 'templates.yaml')}
  for name in FILES[file]:
    ours = promptsource_prompts.by_name(name)
    assert (ours.jinja, ours.answer_choices) == (
      released[name].jinja,
      released[name].answer_choices,
    )


@pytest.mark.parametrize('name', RENDERED)
def test_they_are_rendered_as_promptsource_does(name):
  row, inputs, options, label = RENDERED[name]
  prompt = promptsource_prompts.by_name(name)
  template = template_language.Template(name, prompt.jinja, prompt.answer_choices)
  assert template.apply_with_options(row, 0) == (inputs, options[label], options)


def test_text_that_holds_the_separator_of_templates_is_left_alone():
  row = COPA | {'choice1': 'a ||| b', 'label': 0}
  ((_, question),) = ranked_prompts.questions(
    promptsource_prompts.by_name('best_option'), [('row 1', row)]
  )
  assert question.options == ['a ||| b', 'C2']
  assert question.label == 0


def test_an_option_that_is_empty_is_named_and_a_row_without_an_answer_left_out():
  prompt = promptsource_prompts.by_name('i_am_hesitating')
  row = COPA | {'choice2': '', 'label': 0}
  with pytest.raises(ranked_prompts.OptionProblemError, match=r'data row 7: .* the empty option'):
    list(ranked_prompts.questions(prompt, [('data row 7', row)]))
  found = ranked_prompts.questions(prompt, [('1', COPA), ('2', COPA | {'label': -1}), ('3', COPA)])
  assert [number for number, _ in found] == [0, 2]


def test_a_template_without_options_is_refused():
  bare = templates.PromptTemplate('bare', '{{ premise }} ||| x')
  with pytest.raises(ranked_prompts.OptionProblemError, match="'bare' has no answer_choices"):
    list(ranked_prompts.questions(bare, [('1', COPA)]))
