"""The one-file page is whole, asks nothing of a network, and cannot be broken by what the tokens hold."""

import json
import re

from clearhead.views.page import es_module
from clearhead.views.page.html import page
from views.fake import reading


def data_of(html):
    return json.loads(re.search(r'<script type="application/json" id="payload">(.*?)</script>', html, re.S)[1])


def test_no_request_leaves_the_page():
    html = page(reading(7))
    assert not re.search(r"""(src|href)\s*=\s*["']|@import|url\(|\bimport\s*\(|\bfetch\s*\(""", html)
    assert set(re.findall(r"https?://[^\s\"']+", html)) <= {"http://www.w3.org/2000/svg"}


def test_tokens_cannot_leave_their_place():
    nasty = ["</script><script>alert(1)</script>", "<!--", "{braces}", "&amp;"]
    html = page(reading(nasty, layers=1, heads=1), text="</title><script>alert(2)</script>")
    assert data_of(html)["tokens"] == nasty
    assert html.count("<script") == 2
    assert "alert(2)</script>" not in html


def test_the_head_asked_for_is_open():
    assert '"layer": 1, "head": 0' in page(reading(7), layer=1)


def test_the_module_is_inlined_once_and_has_no_export_left_behind():
    html = page(reading(7))
    assert "const attention = {" in html
    assert not re.search(r"^\s*(export|import) ", html, re.M)


def test_the_parts_join_to_one_module_whose_names_do_not_clash():
    names = [
        name
        for part in es_module.PARTS
        for name in re.findall(r"^(?:export )?(?:const|let|function|class) (\w+)", es_module.static(part), re.M)
    ]
    assert len(names) == len(set(names)) > 20
    assert es_module.one_module().count("export default") == 1


def test_a_part_imports_only_parts_before_it():
    for place, part in enumerate(es_module.PARTS):
        assert set(re.findall(r'from "\./([a-z]+\.js)"', es_module.static(part))) <= set(es_module.PARTS[:place])
