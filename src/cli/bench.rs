//! `lft bench`: what this machine can do.

use anyhow::Result;
use serde_json::json;

use super::Global;
use crate::console;
use crate::ops::roofline::{self, Limits};

/// Measure this machine.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Roofline(Roofline),
}

/// The limits that every computation on the processor meets: the rate of f32 matrix products and the memory's bandwidth.
///
/// Rates are the best of several samples. Anything else that runs on the machine lowers them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lft bench roofline\n  lft bench roofline --json\n  RAYON_NUM_THREADS=8 lft bench roofline"
)]
struct Roofline {
    /// One JSON object a line and number of threads, with rates in FLOP/s and bytes/s.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(global: &Global, arguments: Arguments) -> Result<()> {
    let What::Roofline(Roofline { json }) = arguments.what;
    let mut counts = vec![1, rayon::current_num_threads()];
    counts.dedup();
    global.note(&format!(
        "measuring with {} threads at most, about {} s",
        counts[counts.len() - 1],
        2 * counts.len()
    ));
    let limits = counts.into_iter().map(roofline::measure).collect::<Result<Vec<_>>>()?;
    console::print(&if json { lines(&limits) } else { table(&limits) })
}

fn lines(limits: &[Limits]) -> String {
    let line = |l: &Limits| {
        json!({
            "threads": l.threads,
            "vector_product": l.vector_product,
            "tile_product": l.tile_product,
            "read": l.read,
            "copy": l.copy,
        })
    };
    limits.iter().map(|limits| format!("{}\n", line(limits))).collect()
}

fn table(limits: &[Limits]) -> String {
    let giga = |rate: f64, unit: &str| format!("{:.1} {unit}", rate * 1e-9);
    let mut rows = vec![["threads", "product, vectors", "product, tiles", "read", "copy"].map(str::to_owned)];
    rows.extend(limits.iter().map(|l| {
        let tiles = l.tile_product.map_or("no tile unit".to_owned(), |rate| giga(rate, "GFLOP/s"));
        [
            l.threads.to_string(),
            giga(l.vector_product, "GFLOP/s"),
            tiles,
            giga(l.read, "GB/s"),
            giga(l.copy, "GB/s"),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}"));
        cells.collect::<Vec<_>>().join("  ") + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: [Limits; 2] = [
        Limits { threads: 1, vector_product: 1.5e11, tile_product: None, read: 1e10, copy: 2e10 },
        Limits { threads: 16, vector_product: 2e12, tile_product: Some(4e12), read: 1e11, copy: 2e11 },
    ];

    #[test]
    fn the_table_is_aligned() {
        let text = table(&TWO);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{text}");
        assert!(lines[1].contains("150.0 GFLOP/s") && lines[1].contains("no tile unit"), "{text}");
        assert!(lines[2].contains("4000.0 GFLOP/s"), "{text}");
    }

    #[test]
    fn json_has_a_line_for_each_number_of_threads() {
        let text = lines(&TWO);
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!((&last["threads"], &last["tile_product"]), (&json!(16), &json!(4e12)));
        assert_eq!(TWO.map(|l| l.product()), [1.5e11, 4e12]);
    }
}
