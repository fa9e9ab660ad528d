from moviegen.report.pages import provenance, sampling
from tests.report.making import sampled, write_executed


def test_the_appendix_lists_what_was_shown(params):
    run = sampled(params)
    write_executed(params, "sampling", sampling.clips(run, "val"))
    listed = provenance.figures_and_runs(params).data
    assert run.name in listed
    assert "Generated clips beside the clip of the same caption" in listed
    assert f'id="{run.name}"' in provenance.details([run, None]).data
