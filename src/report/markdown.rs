//! Markdown from scripts and files as HTML that can do no harm.

use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

/// The text as HTML: CommonMark with tables and strike-through.
///
/// HTML in the text is shown, not obeyed. Only links to the web, to mail and within the page stay links; a picture
/// becomes its description, since the page loads nothing. Headings are one level lower, under the page's own title.
pub fn to_html(text: &str) -> String {
    let mut dead_links = Vec::new();
    let events = Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH)
        .filter_map(|event| harmless(event, &mut dead_links));
    let mut page = String::with_capacity(text.len() * 3 / 2);
    html::push_html(&mut page, events);
    page
}

/// `dead_links` is the stack of open links: whether each was dropped.
fn harmless<'a>(event: Event<'a>, dead_links: &mut Vec<bool>) -> Option<Event<'a>> {
    Some(match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        Event::Start(Tag::HtmlBlock) => Event::Start(Tag::Paragraph),
        Event::End(TagEnd::HtmlBlock) => Event::End(TagEnd::Paragraph),
        Event::Start(Tag::Image { .. }) | Event::End(TagEnd::Image) => return None,
        Event::Start(Tag::Link { ref dest_url, .. }) => {
            dead_links.push(!may_lead_to(dest_url));
            return (!dead_links.last()?).then_some(event);
        }
        Event::End(TagEnd::Link) => return (!dead_links.pop()?).then_some(event),
        Event::Start(Tag::Heading { level, .. }) => {
            Event::Start(Tag::Heading { level: lower(level), id: None, classes: vec![], attrs: vec![] })
        }
        Event::End(TagEnd::Heading(level)) => Event::End(TagEnd::Heading(lower(level))),
        other => other,
    })
}

fn may_lead_to(address: &CowStr) -> bool {
    ["https://", "http://", "mailto:", "#"]
        .iter()
        .any(|start| address.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start)))
}

fn lower(level: HeadingLevel) -> HeadingLevel {
    match level {
        HeadingLevel::H1 => HeadingLevel::H2,
        HeadingLevel::H2 => HeadingLevel::H3,
        HeadingLevel::H3 => HeadingLevel::H4,
        HeadingLevel::H4 => HeadingLevel::H5,
        HeadingLevel::H5 | HeadingLevel::H6 => HeadingLevel::H6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_writers_use() {
        assert_eq!(
            to_html("# A\n\n*b* `c` ~~d~~"),
            "<h2>A</h2>\n<p><em>b</em> <code>c</code> <del>d</del></p>\n"
        );
        assert!(
            to_html("| a | b |\n|---|--:|\n| 1 | 2 |").contains("<td style=\"text-align: right\">2</td>")
        );
        assert_eq!(to_html("[a](https://b.c)"), "<p><a href=\"https://b.c\">a</a></p>\n");
    }

    #[test]
    fn nothing_runs_and_nothing_is_loaded() {
        assert_eq!(to_html("<script>x</script>"), "<p>&lt;script&gt;x&lt;/script&gt;</p>\n");
        assert_eq!(to_html("a <b onclick=x>"), "<p>a &lt;b onclick=x&gt;</p>\n");
        assert_eq!(to_html("[a](javascript:x) b"), "<p>a b</p>\n");
        assert_eq!(to_html("[a](JavaScript&#58;x)"), "<p>a</p>\n");
        assert_eq!(to_html("![a *b*](https://c/d.png)"), "<p>a <em>b</em></p>\n");
        assert_eq!(to_html("[![a](x.png)](data:b)"), "<p>a</p>\n");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_script_or_an_attribute_that_runs(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "<script>", "</script>", "<img src=x onerror=y>", "[", "](", ")", "javascript:", "`", "\n\n", "!", "\"", "# ",
                    "<", ">", "a", "| ", "&lt;", "data:text/html,", "<https://x>", "\\",
                ]),
                0..14,
            )
        ) {
            let page = to_html(&parts.concat()).to_lowercase();
            for harm in ["<script", "<img", "href=\"javascript", "href=\"data", "<iframe"] {
                prop_assert!(!page.contains(harm), "{harm} in {page}");
            }
        }
    }
}
