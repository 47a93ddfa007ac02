//! What the pages that are written have in common: tables and escaped text.

use std::fmt::Write;

/// Adds a table with these titles.
pub fn table(html: &mut String, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    html.push_str("<table><tr>");
    for title in head {
        let _ = write!(html, "<th>{}</th>", escape(title));
    }
    html.push_str("</tr>\n");
    for row in rows {
        html.push_str("<tr>");
        for cell in row {
            let _ = write!(html, "<td>{}</td>", escape(&cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n");
}

/// The text where HTML is read.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
