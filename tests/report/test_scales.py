"""The page above all reports: which are listed, and what is said of those that cannot be."""

from moviegen.report import documents, publish, scales
from moviegen.report.tables import table
from tests.report.making import finished, section, write_executed


def published(outputs, scale, *rows):
    page = outputs / scale / "html" / "index.html"
    page.parent.mkdir(parents=True)
    cells = [{"result": name, "value": value} for name, value in rows]
    document = documents.parse(f'<main><div data-shows="summary">{table(cells, "Results").data}</div></main>')
    documents.finish(document, 1)
    page.write_text(str(document))


def reports_page(outputs):
    return documents.parse((outputs / "html" / "index.html").read_text())


def rows_of(page):
    return [[cell.get_text(strip=True) for cell in row.select("th, td")] for row in page.select("table tr")]


def test_reports_stand_side_by_side_and_others_are_passed_over(params, outputs, capsys):
    published(outputs, "a <b>", ("PSNR (dB)", "30.1"), ("loss", "not run here"))
    published(outputs, "c #1", ("PSNR (dB)", "31.2"), ("speed", "4"))
    (outputs / "damaged" / "html").mkdir(parents=True)
    (outputs / "damaged" / "html" / "index.html").write_bytes(b"\xff\xfe\x00")
    (outputs / "none" / "runs").mkdir(parents=True)
    (outputs / "assets").mkdir()
    finished(params, "data")
    publish.publish(params)
    publish.publish_scales()
    page, said = reports_page(outputs), capsys.readouterr().out
    assert rows_of(page) == [
        ["", "a <b>", "c #1"],
        ["report", "a <b>", "c #1"],
        ["PSNR (dB)", "30.1", "31.2"],
        ["loss", "not run here", "-"],
        ["speed", "-", "4"],
    ]
    assert [link["href"] for link in page.select("td a")] == [
        "../a%20%3Cb%3E/html/index.html", "../c%20%231/html/index.html"
    ]  # fmt: skip
    notes = [note.get_text() for note in page.select(".note")]
    assert [note.split()[0] for note in notes] == ["damaged", "none", "tiny"]  # tiny's overview was not executed
    assert all(f"reports: {note}" in said for note in notes)
    assert "no report has been published" in notes[1]


def test_it_is_written_again_where_a_report_changed_alone(params, outputs):
    publish.publish(params)
    publish.publish_scales()
    path = outputs / "html" / "index.html"
    before = path.stat().st_mtime_ns
    publish.publish(params)
    publish.publish_scales()
    assert path.stat().st_mtime_ns == before
    write_executed(params, "overview", table([{"result": "loss", "value": "1.5"}], "Results"))
    assert scales.found(outputs)[0].problem
    notebook = section("overview").executed(params)
    notebook.write_text(notebook.read_text().replace("show()", "page.summary()"))
    publish.publish(params)
    publish.publish_scales()
    assert rows_of(reports_page(outputs))[-1] == ["loss", "1.5"]
