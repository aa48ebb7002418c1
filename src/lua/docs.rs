//! The reference: the catalogue as Markdown.

use super::catalogue::{Catalogue, Entry, Kind, Param};

/// `docs/lua.md`: every module, class and options table, with an example for each function.
pub fn markdown(catalogue: &Catalogue) -> String {
    let mut text = String::from(
        "# The Lua reference\n\nGenerated from the table that registers the functions; do not edit.\n\n\
         ```lua\nlocal lft = require(\"lft\")\n```\n\n",
    );
    for module in &catalogue.modules {
        section(&mut text, module.name, module.about, &[]);
        entries(&mut text, catalogue, module.name);
    }
    for class in &catalogue.classes {
        section(&mut text, class.name, class.about, class.fields);
        entries(&mut text, catalogue, class.name);
    }
    text.push_str("## Options\n\n");
    for table in &catalogue.options {
        text.push_str(&format!("### {}\n\n", table.class));
        rows(&mut text, "option", table.fields);
    }
    text.trim_end().to_owned() + "\n"
}

fn section(text: &mut String, name: &str, about: &str, fields: &[Param]) {
    text.push_str(&format!("## {name}\n\n{about}\n\n"));
    if !fields.is_empty() {
        rows(text, "field", fields);
    }
}

fn entries(text: &mut String, catalogue: &Catalogue, owner: &str) {
    for entry in catalogue.of(owner) {
        one(text, entry);
    }
}

fn one(text: &mut String, entry: &Entry) {
    let kind = if entry.kind() == Kind::Operator { "Operator. " } else { "" };
    text.push_str(&format!("### {}\n\n`{}`\n\n{kind}{}\n\n", entry.name, entry.call(), entry.about));
    if !entry.params.is_empty() {
        rows(text, "parameter", entry.params);
    }
    for (kind, about) in entry.returns.iter().filter(|result| result.0 != "nil") {
        text.push_str(&format!("Returns `{}`: {about}.\n\n", kind));
    }
    text.push_str(&format!("```lua\n{}\n```\n\n", entry.example));
}

fn rows(text: &mut String, title: &str, params: &[Param]) {
    text.push_str(&format!("| {title} | type | |\n|---|---|---|\n"));
    for (name, kind, about) in params {
        text.push_str(&format!("| `{name}` | `{}` | {about} |\n", kind.replace('|', "\\|")));
    }
    text.push('\n');
}
