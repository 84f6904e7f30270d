//! The table: medians, spread, ratios, and what was to be reached.
#![allow(clippy::print_stdout)]

use super::rows::Row;
use std::io::Write;

/// What one row's times come to, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// Nine of ten are below.
    pub(crate) ninth: f64,
}

impl Summary {
    pub(crate) fn of(row: &Row) -> Self {
        let mut times = row.times.clone();
        times.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let last = times.len().saturating_sub(1);
            times
                .get((last as f64 * part).round() as usize)
                .copied()
                .unwrap_or(f64::NAN)
        };
        Self {
            median: at(0.5),
            least: at(0.0),
            most: at(1.0),
            ninth: at(0.9),
        }
    }
}

/// Prints the rows, each with its ratio to the medians of the rows named in `against`.
pub(crate) fn print(title: &str, rows: &[Row], left_out: &[String], against: &[&str]) {
    println!("\n{title}\n");
    let known: Vec<(&str, f64)> = against
        .iter()
        .filter_map(|name| Some((*name, median(rows, name)?)))
        .collect();
    let mut head = format!(
        "{:<44} {:>9} {:>9} {:>9} {:>9}",
        "milliseconds", "median", "min", "p90", "max"
    );
    for (name, _) in &known {
        head.push_str(&format!(" {:>14}", format!("x {name}")));
    }
    println!("{head}");
    for row in rows {
        let all = Summary::of(row);
        let mut line = format!(
            "{:<44} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
            row.name, all.median, all.least, all.ninth, all.most
        );
        for (_, base) in &known {
            line.push_str(&format!(" {:>14.2}", all.median / base));
        }
        println!("{line}");
    }
    for reason in left_out {
        println!("left out: {reason}");
    }
    println!();
    // Shown before what comes next, whoever reads it.
    let _ = std::io::stdout().flush();
}

/// The median of the row of that name.
pub(crate) fn median(rows: &[Row], name: &str) -> Option<f64> {
    let row = rows.iter().find(|row| row.name == name)?;
    Some(Summary::of(row).median)
}

/// Says whether `row` takes at most `most` times what `base` does; a row that is missing is said, too.
pub(crate) fn bar(rows: &[Row], row: &str, most: f64, base: &str) {
    match (median(rows, row), median(rows, base)) {
        (Some(time), Some(base_time)) => {
            let ratio = time / base_time;
            let verdict = if ratio <= most { "reached" } else { "MISSED" };
            println!("{verdict}: {row} is to take at most {most:.2} times what {base} takes: {ratio:.2}");
        }
        _ => println!("not measured: {row} against {base}"),
    }
}

/// What the figures were taken on.
pub(crate) fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    format!(
        "Linux {}, {cores} cores, load {}",
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or_default()
    )
}
