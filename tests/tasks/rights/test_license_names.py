"""Names of licences as the hub, SPDX, Kaggle and people write them."""

import pytest

from aya_train.tasks.rights import license_names, licenses

# The identifiers of the hub's field `license`.
HUB = {
  'commercial': """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m
    bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd
    bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nd-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc
    lppl-1.3c ms-pl apple-ascl mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0
    postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr llama2 llama3 llama3.1 llama3.2
    llama3.3 llama4 gemma
  """,
  'non-commercial': """
    cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nc-sa-3.0-igo
  """,
  'academic-only': """
    h-research intel-research apple-amlr deepfloyd-if-license
    fair-noncommercial-research-license grok2-community other
  """,
  'unspecified': 'unknown',
}
WRITTEN = {
  'commercial': """
    GPLv3
    GPL v2
    GPL-3
    GPL 2
    GNU GPL v3
    GNU GPLv2
    GNU GPL
    GNU General Public License
    GNU General Public License, version 2
    GPL-3.0-or-later
    GPL-2.0-only
    GPL-2.0+
    GNU General Public License v3.0 or later
    AGPLv3
    AGPL
    AGPL-3.0-only
    GNU AGPLv3
    GNU Affero General Public License 3.0
    LGPLv3
    LGPL-2.1-or-later
    LGPL v2.1
    GNU LGPL 3
    GNU Lesser General Public License v3.0
    GNU Free Documentation License 1.3
    GFDL 1.3
    GFDL-1.2
    Apache
    Apache 2
    Apache-2
    Apache v2
    Apache License
    Apache License Version 2.0
    Apache License v2.0
    Apache2
    apache2.0
    Apache Software License
    Apache Software License 2.0
    ASL 2.0
    Apache License, Version 2.0, January 2004
    Llama 2 Community License
    Llama 2 Community License Agreement
    LLAMA 2 COMMUNITY LICENSE
    Meta Llama 3 Community License Agreement
    Llama 3.1 Community License
    Llama-3.2
    Llama 3.3 Community License Agreement
    LLaMA 4 Community License
    Gemma Terms of Use
    Gemma License
    CC-BY 4
    CC BY 4
    CC-BY-4
    cc by sa 4
    CC BY-SA 3
    CC-BY
    CC-BY-SA
    ccby4.0
    CC BY 4.0 International
    Creative Commons Attribution 4.0
    Creative Commons Attribution 4.0 International License
    Attribution 4.0 International (CC BY 4.0)
    Creative Commons BY 4.0
    CC0
    CC-0
    CC Zero
    CC0: Public Domain
    CC0 1.0 Universal
    Public Domain (CC0)
    Creative Commons Zero v1.0 Universal
    Creative Commons Zero
    CC0 1.0 Universal (CC0 1.0) Public Domain Dedication
    BSD
    BSD License
    BSD 3-Clause
    BSD-3
    3-clause BSD
    BSD 3-Clause "New" or "Revised" License
    New BSD License
    Modified BSD License
    BSD 2-Clause "Simplified" License
    Simplified BSD
    BSD-2-Clause License
    BSD 3 clause
    BSD (3-clause)
    BSD-3-Clause Clear
    MIT license
    MIT License
    MIT Licence
    The MIT License (MIT)
    MIT.
    mit
    Expat
    MIT/Expat
    MPL
    MPL 2
    MPLv2
    Mozilla Public License 2.0
    Mozilla Public License
    EPL 2
    Eclipse Public License 2.0
    Eclipse Public License - v 2.0
    European Union Public License 1.2
    EUPL
    EUPL v1.2
    Boost Software License 1.0
    The Unlicense
    zlib License
    SIL Open Font License 1.1
    OFL
    Microsoft Public License
    Open Software License 3.0
    ISC
    Educational Community License v2.0
    University of Illinois/NCSA Open Source License
    Academic Free License 3.0
    Artistic License 2
    Etalab Open License 2.0
    Licence Ouverte 2.0
    OGL
    OGL-UK-3.0
    Open Government Licence v3.0
    UK Open Government Licence v3
    PostgreSQL License
    Open Data Commons Attribution License
    Open Data Commons Attribution License v1.0
    ODC-BY 1.0
    ODC Attribution License (ODC-By)
    ODC-BY
    Open Database License
    ODbL v1.0
    Open Data Commons Open Database License (ODbL)
    ODC-ODbL
    PDDL 1.0
    ODC Public Domain Dedication and Licence (PDDL)
    Open Data Commons Public Domain Dedication and License
    Community Data License Agreement - Permissive - Version 1.0
    Community Data License Agreement - Sharing - Version 1.0
    Community Data License Agreement Permissive 2.0
    CDLA-Permissive-2.0
    CDLA-Sharing-1.0
    BigScience OpenRAIL-M
    BigScience RAIL License v1.0
    OpenRAIL-M
    BigCode OpenRAIL-M v1
    Public Domain
    public domain
    Unicode License
    Unicode License V3
  """,
  'non-commercial': """
    CC-BY-NC
    CC BY-NC 4
    CC-BY-NC-SA 4
    CC BY-NC-SA 3.0 IGO
    CC-BY-NC-ND
    Creative Commons Attribution-NonCommercial 4.0 International
    Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International (CC BY-NC-SA 4.0)
    Attribution-NonCommercial 4.0 International (CC BY-NC 4.0)
    creative commons by-nc
    CC BY NC SA
  """,
}
UNCLEAR = """
Apache 2.0 with Commons Clause
MIT, research only
Apache 2.0, research only
Llama 2 (no commercial use)
MIT-like
BSD-like
Not MIT
GPL incompatible
custom (apache-2.0)
Apache 2.0 / CC BY-NC 4.0
MIT or proprietary
proprietary
All rights reserved
see LICENSE
see paper
free
open
open source
research
Creative Commons
CC
CC 4.0
CC-4.0
cc-sa-4.0
CC NC
Permissive
Other (specified in description)
Tongyi Qianwen
Falcon-180B
Stability AI Community License
Apache 3.0
MIT 2.0
GPL 4
GPLv33
CC BY 9
BSD 5-clause
Llama 9
Llama
Gemma 7B NC
Apache 2.0 (code), CC BY-NC (data)
MIT license for code
CC BY 4.0 except images
no license
none
n/a
TBD
?
-
Unlicensed
Copyright
fair use
Community
License
The License
Meta
meta community license
Community License Agreement
v2
2.0
version 3
GNU
GNU license
public
General Public
Lesser
Reddit API Terms
World Bank Dataset Terms of Use
U.S. Government Works
MIT*
Apache-2.0-NC
LGPL-NC
GPL 3 NC
Llama 2 research license
LLaMA
llama 1
OpenRAIL NC
CDLA
ODC
RAIL
odc-nc
by
BSD NC
CC BY 4.0 / MIT
Apache 2.0 / MIT
Apache-2.0 OR MIT
MIT AND CC-BY-NC-4.0
"""


def lines(text: str) -> list[str]:
  return [line.strip() for line in text.strip().splitlines()]


@pytest.mark.parametrize('use', HUB)
def test_every_identifier_of_the_hub_has_its_class(use):
  names = HUB[use].split()
  assert {name: licenses.classify(name).use for name in names} == dict.fromkeys(names, use)


@pytest.mark.parametrize('use', WRITTEN)
def test_names_as_people_write_them(use):
  names = lines(WRITTEN[use])
  assert {name: licenses.classify_stated(name).use for name in names} == dict.fromkeys(names, use)


@pytest.mark.parametrize('name', lines(UNCLEAR))
def test_nothing_is_guessed_from_a_part_of_a_name(name):
  with pytest.raises(licenses.UnknownLicenseError):
    licenses.classify_stated(name)


def test_what_is_said_twice_is_of_the_stricter_class():
  assert licenses.classify('MIT License (CC BY-NC 4.0)').use == 'non-commercial'
  found = licenses.classify('The MIT License (MIT)')
  assert (found.use, found.attribution) == ('commercial', True)


def test_a_name_in_its_form():
  assert license_names.loose('Apache License, Version 2.0') == license_names.loose('apache-2.0')
  assert license_names.loose('GNU General Public License v3.0 or later') == 'gpl3'
  assert license_names.loose('Llama 3.1 Community License Agreement') == 'llama3.1'
  assert license_names.commons('cc-by-nc-sa-3.0-igo') == 'CC BY-NC-SA 3.0'
  assert license_names.commons('CC BY 9') is None
