//! Type definitions for editors: the catalogue as LuaCATS annotations.

use super::catalogue::{Catalogue, Entry, Kind, Param};

/// The definition file of the whole module, for lua-language-server.
pub fn luacats(catalogue: &Catalogue) -> String {
    let mut text = String::from("---@meta lft\n\n");
    for table in &catalogue.options {
        class(&mut text, table.class, "", table.fields);
        text.push('\n');
    }
    for entry in &catalogue.classes {
        class(&mut text, entry.name, entry.about, entry.fields);
        if catalogue.of(entry.name).next().is_none() {
            // A plain table, to which scripts add what they like.
            text.push_str("---@field [string] any\n");
        }
        for operator in catalogue.of(entry.name).filter(|entry| entry.kind() == Kind::Operator) {
            annotate_operator(&mut text, operator);
        }
        text.push_str(&format!("local {} = {{}}\n\n", entry.name));
        for method in catalogue.of(entry.name).filter(|entry| entry.kind() == Kind::Method) {
            function(&mut text, method);
        }
    }
    for module in &catalogue.modules {
        let local = if module.name == "lft" { "local " } else { "" };
        let (calls, functions): (Vec<&Entry>, Vec<&Entry>) =
            catalogue.of(module.name).partition(|entry| entry.kind() == Kind::Operator);
        match calls.is_empty() {
            true => comment(&mut text, module.about),
            false => class(&mut text, module.name, module.about, &[]),
        }
        for call in calls {
            annotate_operator(&mut text, call);
        }
        text.push_str(&format!("{local}{} = {{}}\n\n", module.name));
        for entry in functions {
            function(&mut text, entry);
        }
    }
    text + "---The version of lft.\n---@type string\nlft.version = \"\"\n\nreturn lft\n"
}

fn comment(text: &mut String, about: &str) {
    for line in about.lines() {
        text.push_str(&format!("---{line}\n"));
    }
}

fn class(text: &mut String, name: &str, about: &str, fields: &[Param]) {
    comment(text, about);
    text.push_str(&format!("---@class {name}\n"));
    for (name, kind, about) in fields {
        text.push_str(&format!("---@field {name} {kind} {about}\n"));
    }
}

fn function(text: &mut String, entry: &Entry) {
    comment(text, entry.about);
    for (name, kind, about) in entry.params {
        text.push_str(&format!("---@param {name} {kind} {about}\n"));
    }
    for (kind, about) in entry.returns {
        text.push_str(&format!("---@return {kind} # {about}\n"));
    }
    let params: Vec<&str> = entry.params.iter().map(|param| param.0.trim_end_matches('?')).collect();
    text.push_str(&format!("function {}({}) end\n\n", entry.name, params.join(", ")));
}

fn annotate_operator(text: &mut String, entry: &Entry) {
    let result = entry.returns.first().map_or("any", |result| result.0);
    let operand = entry.params.first().map_or(String::new(), |param| format!("({})", param.1));
    match entry.short() {
        "__index" => {
            let key = entry.params.first().map_or("any", |param| param.1);
            text.push_str(&format!("---@field [{key}] {result}\n"));
        }
        "__call" => {
            let params: Vec<String> =
                entry.params.iter().map(|(name, kind, _)| format!("{name}: {kind}")).collect();
            text.push_str(&format!("---@overload fun({}): {result}\n", params.join(", ")));
        }
        name @ ("__add" | "__sub" | "__mul" | "__div" | "__pow" | "__unm" | "__len") => {
            text.push_str(&format!("---@operator {}{operand}: {result}\n", name.trim_start_matches('_')));
        }
        _ => {}
    }
}
