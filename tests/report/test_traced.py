import pytest

from moviegen.report.traced import trace

CARD = '<figure class="card"><table><tr><td>loss</td><td>{}</td></tr></table><img src="data:{}"><pre>7</pre></figure>'
PAGE = '<html data-mark="{}"><p>Conv of 3 x 3.</p><div class="output_area">' + CARD + "</div></html>"


def test_what_is_the_same_is_traced():
    traced = trace(PAGE.format("a", "1.25 ± 0.5", "x"), PAGE.format("b", "1.25 ± 0.5", "x"), "output_area")
    assert (traced.numbers, traced.same_numbers, traced.pictures, traced.same_pictures) == (2, 2, 1, 1)
    assert traced.differences == ()


@pytest.mark.parametrize(
    ("page", "same_numbers", "same_pictures", "said"),
    [
        (PAGE.format("a", "1.26", "x"), 0, 1, "'1.26' is, derived again, '1.25'"),
        (PAGE.format("a", "1.25", "y"), 1, 0, '<img src="data:y">'),
        (PAGE.format("a", "1.25", "x").replace("3 x 3", "5 x 5"), 1, 1, "Conv of 5 x 5."),
        (PAGE.format("a", "1.25", "x").replace("7", "8"), 1, 1, "'8' is, derived again, '7'"),
        (PAGE.format("a", "1.25", "x").replace('"card"', '"card" title="9"'), 1, 1, 'title="9"'),
    ],
)
def test_what_was_edited_is_not(page, same_numbers, same_pictures, said):
    traced = trace(page, PAGE.format("a", "1.25", "x"), "output_area")
    assert (traced.same_numbers, traced.same_pictures) == (same_numbers, same_pictures)
    assert len(traced.differences) == 1 and said in traced.differences[0]


def test_a_number_that_only_the_page_has_is_not_traced():
    rows = "".join(f"<tr><td>{number}</td></tr>" for number in range(300))
    traced = trace(f"<table>{rows}<tr><td>0.5</td></tr></table>", f"<table>{rows}</table>")
    assert (traced.numbers, traced.same_numbers) == (301, 300)
    assert "0.5" in traced.differences[0]
    assert trace(f"<table>{rows}</table>", f"<table>{rows}<tr><td>0.5</td></tr></table>").differences


def test_two_edits_far_apart_leave_what_is_between_them():
    rows = [f"<tr><td>{number / 7:.4f}</td></tr>" for number in range(100)]
    edited = ["<tr><td>9.9</td></tr>", *rows[1:-1], "<tr><td>9.8</td></tr>"]
    traced = trace("".join(edited), "".join(rows))
    assert (traced.numbers, traced.same_numbers, len(traced.differences)) == (100, 98, 2)


def test_digits_in_names_are_no_numbers():
    assert trace("<p>stage1-0a8b9f and 1,234.5 of 2e-05, -3 or 30B</p>", "").numbers == 4
