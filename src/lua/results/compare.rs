//! `lft.compare`: two groups of values, tested and put into words.

use mlua::{Lua, Table};

use crate::lua::catalogue::{Entry, OptionsTable};
use crate::lua::options::Options;
use crate::lua::register::Registry;
use crate::report::groups;

const COMPARE: OptionsTable = OptionsTable {
    class: "CompareOptions",
    fields: &[(
        "names?",
        "string[]",
        "what the two groups are called, {\"the first\", \"the second\"} when left out",
    )],
};

/// Registers `lft.compare`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&COMPARE);
    let fields = &[
        ("mean", "number[]", "mean of the first and of the second group"),
        ("sd", "number[]", "their standard deviations"),
        ("difference", "number", "mean of the second minus mean of the first"),
        ("ci?", "number[]", "95 % interval of the difference"),
        (
            "p?",
            "number",
            "chance of such a difference were the means equal; absent where it cannot be tested",
        ),
        ("words", "string", "the finding as a sentence"),
    ];
    registry.record("Comparison", "What two groups say of each other.", fields);
    registry.function(
        Entry {
            name: "lft.compare",
            about: "Compares the means of two groups, such as the KL of several seeds with two settings, by Welch's t-test. \
                    The sentence goes well into the sections of a report.",
            params: &[
                ("first", "number[]", "values of the first group"),
                ("second", "number[]", "values of the second group"),
                ("options?", "CompareOptions", "names"),
            ],
            returns: &[("Comparison", "the finding")],
            example: "local c = lft.compare({0.50, 0.51, 0.49}, {0.40, 0.41, 0.39}, {names = {\"zero\", \"teacher\"}})\nassert(c.p < 0.01 and c.words:match(\"^teacher is lower than zero by 0.100\"))",
        },
        |lua, (first, second, options): (Vec<f64>, Vec<f64>, Option<Table>)| {
            let options = Options::read(lua, options, &COMPARE)?;
            let names = options.or("names", vec!["the first".to_owned(), "the second".to_owned()])?;
            anyhow::ensure!(names.len() == 2, "option 'names' has two entries, found {}", names.len());
            table(lua, &groups::compare((&names[0], &names[1]), &first, &second)?)
        },
    )
}

fn table(lua: &Lua, groups: &groups::Groups) -> anyhow::Result<Table> {
    let table = lua.create_table()?;
    table.set("mean", vec![groups.first.mean, groups.second.mean])?;
    table.set("sd", vec![groups.first.sd, groups.second.sd])?;
    table.set("difference", groups.second.mean - groups.first.mean)?;
    if let Some(test) = groups.test {
        table.set("ci", vec![test.low, test.high])?;
        table.set("p", test.p)?;
    }
    table.set("words", groups.words.as_str())?;
    Ok(table)
}
