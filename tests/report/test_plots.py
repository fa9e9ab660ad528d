from moviegen.report.pages import sampling


def test_the_same_figure_gives_the_same_bytes():
    assert sampling.schedules(10).data == sampling.schedules(10).data
    assert sampling.schedules(10).data != sampling.schedules(11).data
