//! Residents' pages: HTML made on the server, without scripts, without a request to anybody else.
//!
//! Pages show what the named queries `latest`, `curves` and `place` answer, and nothing else. All
//! words are in [`texts`]; all values are escaped by the templates.

pub(crate) mod assets;
mod chart;
pub(crate) mod curve;
mod format;
pub(crate) mod front;
pub(crate) mod site;
pub(crate) mod texts;

use maud::{DOCTYPE, Markup, html};

use front::View;

/// How often the front page asks for itself again, in seconds.
const REFRESH_S: u32 = 60;

/// A whole page around its content. Pages that are read at length do not refresh themselves.
pub(crate) fn page(view: View<'_>, title: &str, refreshes: bool, content: &Markup) -> String {
    let texts = view.texts;
    let document = html! {
        (DOCTYPE)
        html lang=(texts.language) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="theme-color" content="#0d4f5c";
                @if refreshes { meta http-equiv="refresh" content=(REFRESH_S); }
                title { (title) }
                link rel="stylesheet" href=(assets::STYLE.path());
                link rel="icon" href=(assets::ICON.path()) type="image/svg+xml";
            }
            body {
                a .skip href="#innhold" { (texts.skip) }
                @if view.simulated { p .notice role="note" { (texts.simulated) } }
                main #innhold { (content) }
                footer {
                    p { (texts.times_note) }
                    p {
                        (texts.open_data_lead)
                        a href="/api/latest" { "JSON" } ", "
                        a href="/api/query/latest?format=csv" { "CSV" } ", "
                        a href="/api/query" { (texts.open_data) }
                    }
                }
            }
        }
    };
    document.into_string()
}

/// A page that says one thing.
pub(crate) fn message(view: View<'_>, title: &str, lead: &str) -> String {
    let content = html! {
        header .top { h1 { (title) } p .lead { (lead) } }
        p .back { a href="/" { "← " (view.texts.home) } }
    };
    page(view, title, false, &content)
}

#[cfg(test)]
mod tests;
