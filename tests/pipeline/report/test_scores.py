import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from pipeline.metrics.emotions import multi_label_report
from pipeline.metrics.single_label import single_label_report
from pipeline.report.pages import write_page
from pipeline.report.report import Confusion, score_table

EMOTIONS = ["ang", "hap", "neu"]
TRUTH = np.array([0, 0, 0, 1, 1, 2])
ANSWER = np.array([0, 0, 2, 1, 2, 2])


def report(answer=ANSWER, **further):
    single = single_label_report(EMOTIONS, TRUTH, answer, 0)
    return {"metrics": {"single_label": single} | further}


def multi_label():
    present, scores = np.eye(3, dtype=bool)[TRUTH], np.eye(3)[ANSWER]
    return multi_label_report(EMOTIONS, present, scores, scores > 0.5, present.mean(0))


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_what_was_taken_for_what_is_scikit_learns_matrix_of_each_run(task):
    reports = [report(multi_label=multi_label()), report(TRUTH, multi_label=multi_label())]
    found = score_table(task, reports).confusions
    assert [one.emotions for one in found] == [EMOTIONS, EMOTIONS]
    assert found[0].counts == confusion_matrix(TRUTH, ANSWER).tolist()
    assert found[1].counts == np.diag([3, 2, 1]).tolist()


def test_without_one_emotion_each_there_is_none():
    assert score_table("multi-label", [{"metrics": {"multi_label": multi_label()}}]).confusions == []


def test_shares_are_of_the_true_emotion():
    found = Confusion(["a", "b"], [[3, 1], [0, 0]])
    assert [found.share(row, column) for row in (0, 1) for column in (0, 1)] == [0.75, 0.25, 0, 0]


def test_the_page_has_every_count_and_frames_the_right_ones(tmp_path):
    values = dict.fromkeys(("title", "notice", "summary", "split", "count", "protocol", "curves", "command"), "")
    values |= {"versions": "", "sparse_name": "", "costs": [], "sheet": [], "runs": [{"name": "mesm"}]}
    write_page(tmp_path / "page.html", "report/report.html.j2", table=score_table("single-label", [report()]), **values)
    text = (tmp_path / "page.html").read_text()
    assert "<thead><tr><th>mesm</th><th>ang</th><th>hap</th><th>neu</th></tr></thead>" in text
    row = [
        '<td class="right" style="background: rgba(31, 119, 180, 0.47)">2</td>',
        '<td style="background: rgba(31, 119, 180, 0.00)">0</td>',
        '<td style="background: rgba(31, 119, 180, 0.23)">1</td>',
    ]
    assert "<td>ang</td>" + "".join(row) + "</tr>" in text
