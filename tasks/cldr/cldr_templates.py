"""English instructions of the CLDR instruction set, by kind; they name the language, as xP3x does.

A date has a template list per style. A template is used only for facts that fill its slots.
"""

TEMPLATES: dict[str, tuple[str, ...]] = {
  'territory_name': (
    'In {language}, what is {english} called?',
    'What is the {language} name of {english}?',
    'Translate the name of this country or territory into {language}: {english}',
    'Which country or territory has the ISO 3166 code {code}? Answer in {language}.',
    'The {other_language} name of a country or territory is {other}. What is its {language} name?',
  ),
  'language_name': (
    'What is the language {english} called in {language}?',
    'Give the {language} name of the {english} language.',
    'Translate the name of this language into {language}: {english}',
    'Which language has the code {code}? Answer in {language}.',
  ),
  'currency_name': (
    'What is the currency {english} called in {language}?',
    'Write the name of this currency in {language}: {english}',
    'Which currency has the ISO 4217 code {code}? Answer in {language}.',
  ),
  'city_name': (
    'How is the name of the city {english} written in {language}?',
    'Write {english} (a city or place) in {language}.',
    'Which city gives the time zone {code} its name? Answer in {language}.',
  ),
  'month_name': (
    'What is month number {number} of the year called in {language}?',
    'Give the {language} name of {english}, the month.',
    'Name month {number} in {language}.',
    'Translate the name of the month into {language}: {english}',
  ),
  'weekday_name': (
    'What is {english} called in {language}?',
    'Give the {language} name of the weekday {english}.',
    'Name day {number} of the week in {language}, counting from Monday.',
  ),
  'month_neighbour': (
    'In {language}, which month comes {direction} {known}?',
    'Name the month that comes right {direction} {known} in {language}.',
    'The {language} calendar says {known}. Which month is right {direction} it?',
  ),
  'weekday_neighbour': (
    'In {language}, which day of the week comes {direction} {known}?',
    'Name the weekday that comes right {direction} {known} in {language}.',
    'A day is called {known} in {language}. What is the day {direction} it called?',
  ),
  'legal_tender': (
    'Which currency is legal tender in {english}? Answer in {language}.',
    'What do people pay with in {english}? Name the official currency in {language}.',
    'In {language}, name the currency of {english}.',
  ),
  'official_language': (
    'What is the official language of {english}? Answer in {language}.',
    'In {language}, name the official language of {english}.',
    'Which language is official in {english}? Give its {language} name.',
  ),
  'date_format_long': (
    'Write the date {iso} in {language}.',
    'Write {english} as a date in {language}.',
    'How does one write the Gregorian date {iso} in {language}?',
  ),
  'date_format_full': (
    'Write the date {iso}, a {weekday}, in {language} with its weekday.',
    'Write {weekday}, {english}, in full in {language}.',
    'How does one write the Gregorian date {iso} ({weekday}) in full in {language}?',
  ),
  'number_format': (
    'Write the number {number} as it is written in {language}.',
    'Format {number} by the rules of {language}.',
    'How is {number} written with separators in {language}?',
  ),
  'percent_format': (
    'Write {number} percent with a percent sign in {language}.',
    'How is {number} per cent written in {language}?',
  ),
  'list_format': (
    'Join these into a list in {language}: {items}',
    'Write these items as an "and" list in {language}: {items}',
    'How are these listed in {language}? {items}',
  ),
  'unit_format': (
    'Write "{english}" in {language}.',
    'How does one say {english} in {language}?',
    'Translate this measure into {language}: {english}',
  ),
  'identify_language': (
    'Which language is this text in? {text}',
    'Name the language of the following text: {text}',
    'In what language is "{text}" written?',
  ),
  'identify_category': (
    'Is this {language} text the name of a territory, a language, a month, a weekday, a currency '
    'or a city? {text}',
    'What does the {language} name "{text}" stand for: a territory, a language, a month, a '
    'weekday, a currency or a city?',
    'Classify the {language} name as territory, language, month, weekday, currency or city: {text}',
  ),
  'identify_script': (
    'Which script is this written in? {text}',
    'Name the writing system of the following text: {text}',
    'In what script is "{text}" written?',
  ),
}
