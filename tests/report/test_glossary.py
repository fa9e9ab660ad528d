import re

from moviegen.report.glossary import TERMS, anchor, glossary


def test_every_word_can_be_linked_to_and_is_explained():
    shown = glossary().data
    assert re.findall(r'<b id="([^"]+)">', shown) == [anchor(term) for term in sorted(TERMS, key=str.lower)]
    assert len({anchor(term) for term in TERMS}) == len(TERMS)
    assert all(re.fullmatch("[a-z0-9-]+", anchor(term)) for term in TERMS)
