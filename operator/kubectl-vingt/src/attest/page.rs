//! A statement as one page that needs nothing else: figures, plots, tables.

use std::fmt::Write as _;

use vingt_core::ledger::{Statement, gpu_hours};

use super::plot;
use super::text::{costs, figures, hours};
use crate::html::{escape, table};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.2em;margin:2em 0 .3em}h3{font-size:1em;margin:1.5em 0 .3em}\
table{border-collapse:collapse;width:100%}code{word-break:break-all}\
th,td{padding:.3em .6em;text-align:right;border-bottom:1px solid #e3e3e3;font-variant-numeric:tabular-nums}\
th:first-child,td:first-child{text-align:left}table.figures td{text-align:left}\
th{font-weight:600;color:#555}svg{max-width:100%;height:auto}";

/// The page.
pub fn page(statement: &Statement, notes: &[String]) -> anyhow::Result<String> {
    let title = format!("The sovereign reserve in {}", statement.year);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
<style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
    let _ = write!(html, "<p>From {} usage reports; every hash and every sum is right.", statement.reports);
    if !statement.head.is_empty() {
        let _ = write!(
            html,
            " The last one that is sealed is {}, with the hash <code>{}</code>, which stands for all before it.",
            escape(&statement.head),
            escape(&statement.head_hash)
        );
    }
    html.push_str("</p>\n");
    for note in notes {
        let _ = writeln!(html, "<p>{}</p>", escape(note));
    }
    for (name, year) in &statement.reserves {
        let _ = writeln!(html, "<h2>Reserve {}</h2>\n<table class=\"figures\">", escape(name));
        for (what, words) in figures(year) {
            let _ = writeln!(html, "<tr><td>{what}</td><td>{}</td></tr>", escape(&words));
        }
        html.push_str("</table>\n");
        for plot in plot::all(statement.year, year)? {
            let _ = writeln!(html, "<h3>{}</h3>\n{}", plot.title, plot.svg);
        }
        let rows = year.months.iter().map(|(month, of)| {
            vec![
                month.to_string(),
                hours(of.installed),
                hours(of.entitlement),
                gpu_hours(of.claimed),
                gpu_hours(of.ordered),
                gpu_hours(of.lent),
                of.evictions.to_string(),
                of.claims.late.to_string(),
            ]
        });
        html.push_str("<h3>By month, in GPU-hours</h3>\n");
        let head =
            ["month", "installed", "entitled", "claimed", "ordered", "lent", "evictions", "late claims"];
        table(&mut html, &head, rows);
    }
    html.push_str("<h2>Tenants</h2>\n");
    let rows = statement
        .tenants
        .iter()
        .map(|(name, of)| vec![name.clone(), gpu_hours(of.used), gpu_hours(of.sovereign), costs(&of.cost)]);
    table(&mut html, &["tenant", "GPU-hours", "claimed or ordered", "cost"], rows);
    html.push_str("</body></html>\n");
    Ok(html)
}

#[cfg(test)]
mod tests {
    use vingt_core::ledger::verify;

    use super::super::tests::sealed;
    use super::*;

    #[test]
    fn the_page_needs_nothing_else() {
        let reports = sealed();
        let page = page(&verify(&reports).unwrap().statement(2026), &["1 < 2".to_owned()]).unwrap();
        assert!(page.contains("<svg") && page.contains("1 &lt; 2"), "{page}");
        assert!(page.contains("flood &lt;in&gt; the south"), "what others wrote is escaped");
        assert!(!page.contains("src=") && !page.contains("href="));
        assert_eq!(page.matches("<svg").count(), 2);
    }
}
