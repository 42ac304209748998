//! What a benchmark says in the end: a table for people, the figures that must be reached, and the same in JSON.

use std::io::Write;

use anyhow::Context;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use crate::machine::Machine;
use crate::statistics::Samples;

/// All that one benchmark found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    bench: &'static str,
    machine: Machine,
    rows: Vec<Row>,
    bars: Vec<Bar>,
}

/// One thing measured.
#[derive(Debug, Serialize)]
struct Row {
    case: String,
    system: &'static str,
    metric: &'static str,
    unit: &'static str,
    median: f64,
    min: f64,
    max: f64,
}

/// One figure that must be reached.
#[derive(Debug, Serialize)]
struct Bar {
    case: String,
    value: f64,
    unit: &'static str,
    must: String,
    ok: bool,
}

/// Ours, in rows.
pub(crate) const WARREN: &str = "warren";

impl Report {
    pub(crate) fn new(bench: &'static str, machine: Machine) -> Self {
        Self {
            bench,
            machine,
            rows: Vec::new(),
            bars: Vec::new(),
        }
    }

    /// Adds a line to the table.
    pub(crate) fn row(
        &mut self,
        case: &str,
        system: &'static str,
        metric: &'static str,
        unit: &'static str,
        samples: &Samples,
    ) {
        self.rows.push(Row {
            case: case.to_owned(),
            system,
            metric,
            unit,
            median: samples.median(),
            min: samples.min(),
            max: samples.max(),
        });
    }

    /// Adds a figure that must be less than `limit`.
    pub(crate) fn bar_under(&mut self, case: &str, value: f64, unit: &'static str, limit: f64) {
        self.bar(
            case,
            value,
            unit,
            format!("under {}", short(limit)),
            value < limit,
        );
    }

    /// Adds a figure that must be `limit` or less.
    pub(crate) fn bar_at_most(&mut self, case: &str, value: f64, unit: &'static str, limit: f64) {
        self.bar(
            case,
            value,
            unit,
            format!("at most {}", short(limit)),
            value <= limit,
        );
    }

    /// Adds a figure that must be `limit` or more.
    pub(crate) fn bar_at_least(&mut self, case: &str, value: f64, unit: &'static str, limit: f64) {
        self.bar(
            case,
            value,
            unit,
            format!("at least {}", short(limit)),
            value >= limit,
        );
    }

    fn bar(&mut self, case: &str, value: f64, unit: &'static str, must: String, ok: bool) {
        self.bars.push(Bar {
            case: case.to_owned(),
            value,
            unit,
            must,
            ok,
        });
    }

    /// Whether every figure is reached.
    pub(crate) fn holds(&self) -> bool {
        self.bars.iter().all(|it| it.ok)
    }

    /// Writes the machine, the table and the bars.
    pub(crate) fn print(&self, out: &mut impl Write) -> anyhow::Result<()> {
        writeln!(out, "{}\n", self.machine)?;
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(["CASE", "SYSTEM", "METRIC", "UNIT", "MEDIAN", "MIN", "MAX"]);
        for row in &self.rows {
            table.add_row([
                row.case.clone(),
                row.system.to_owned(),
                row.metric.to_owned(),
                row.unit.to_owned(),
                short(row.median),
                short(row.min),
                short(row.max),
            ]);
        }
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        writeln!(out)?;
        for bar in &self.bars {
            let (value, said) = (short(bar.value), if bar.ok { "ok" } else { "short" });
            writeln!(
                out,
                "bar {}: {value} {} (must be {}) {said}",
                bar.case, bar.unit, bar.must
            )?;
        }
        out.flush().context("write the report")
    }

    /// The whole report.
    pub(crate) fn json(&self) -> anyhow::Result<String> {
        serde_json::to_string_pretty(self).context("write the report in JSON")
    }
}

/// Three significant digits, or all in front of the point.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new("speed", Machine::default());
        let samples = Samples::new(vec![12.0, 10.0, 14.5]).unwrap();
        report.row("one by one", WARREN, "time", "ms", &samples);
        report
    }

    #[test]
    fn a_reached_figure_says_ok_and_the_report_holds() {
        let mut report = report();
        report.bar_under("time", 12.0, "ms", 13.0);
        report.bar_at_most("writes", 0.0, "writes", 0.0);
        assert!(report.holds());
        let mut text = Vec::new();
        report.print(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.ends_with(
                "bar time: 12 ms (must be under 13) ok\nbar writes: 0 writes (must be at most 0) ok\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_figure_at_its_limit_is_not_under_it() {
        let mut report = report();
        report.bar_under("time", 13.0, "ms", 13.0);
        assert!(!report.holds());
        let mut text = Vec::new();
        report.print(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.ends_with("bar time: 13 ms (must be under 13) short\n"),
            "{text}"
        );
    }

    #[test]
    fn the_json_has_the_rows_and_bars_of_the_table() {
        let mut report = report();
        report.bar_under("time", 14.0, "ms", 13.0);
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["bench"], "speed");
        assert_eq!(
            json["rows"],
            serde_json::json!([{
                "case": "one by one", "system": "warren", "metric": "time", "unit": "ms",
                "median": 12.0, "min": 10.0, "max": 14.5,
            }])
        );
        assert_eq!(
            json["bars"],
            serde_json::json!([{
                "case": "time", "value": 14.0, "unit": "ms", "must": "under 13", "ok": false,
            }])
        );
        assert!(json["machine"].is_object());
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(
            [0.0, 0.1234, 1.2345, 12.345, 123.45, 64.0].map(short),
            ["0", "0.123", "1.23", "12.3", "123", "64"]
        );
    }
}
